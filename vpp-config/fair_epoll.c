/* Loaded into VPP by LD_PRELOAD, because VPP 26.06 can stop for ever otherwise.
 *
 * vlib_file_poll() asks epoll for 16 events and asks again, without running its graph, for as long as it gets 16. The
 * file of an AF_PACKET ring stays readable until the graph has read the ring. So when 16 rings of one thread hold a
 * packet at one moment, that thread asks for ever. With 15 at most it never takes an answer for a full one; epoll
 * hands the others out the next time, those that waited longest first (docs/vpp-notes.md, "Sixteen rings").
 */
#include <stddef.h>
#include <sys/epoll.h>

enum { LESS_THAN_VPP_ASKS_FOR = 15 };

int
epoll_wait (int epfd, struct epoll_event *events, int maxevents, int timeout)
{
  if (maxevents > LESS_THAN_VPP_ASKS_FOR)
    maxevents = LESS_THAN_VPP_ASKS_FOR;
  return epoll_pwait (epfd, events, maxevents, timeout, NULL);
}

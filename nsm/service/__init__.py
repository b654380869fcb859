"""One hop of NSM on asyncio: the server and client halves that every role is made of."""

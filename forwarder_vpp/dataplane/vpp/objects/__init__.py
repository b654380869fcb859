"""One file for each kind of VPP object: its item and its descriptor."""

"""One file for each kind of kernel object: its item and its descriptor."""

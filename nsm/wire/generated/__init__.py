"""Message classes made from ``nsm/wire/proto`` by ``python -m nsm.wire.generate``; never edited by hand."""

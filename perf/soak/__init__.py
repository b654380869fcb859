"""Clients come and go for as long as wanted, against Go peers; nothing may grow and nothing be lost: ``make soak``."""

"""Desired x actual -> Plan: pure, knows no kind of object and no dataplane."""

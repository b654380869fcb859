"""Desired against actual gives an ordered plan. Pure; knows no kind of object."""

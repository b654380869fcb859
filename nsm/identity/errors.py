"""What a person can do something about: configuration, files and the state of the authority."""


class IdentityError(Exception):
    """One or more sentences, one a line, each saying what was expected and what was found."""

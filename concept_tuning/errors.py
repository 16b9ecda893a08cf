"""Errors that are meant for the person at the keyboard.

Every one of them says what was wrong and what to do; the command line prints the message alone,
without a stack trace, and leaves with the error's exit code.
"""


class StudioError(Exception):
    """Base of all errors whose message is written for the user."""

    exit_code = 2


class ConfigError(StudioError):
    """A setting is unknown, out of range, or does not fit the others."""


class DataError(StudioError):
    """The data cannot be used as given: a missing folder, an empty class, an unsafe archive."""


class ArchiveError(DataError):
    """An archive is damaged, unsafe or empty: nothing in it can be used."""


class WeightsError(StudioError):
    """A backbone or its pre-trained weights cannot be had or do not match."""


class RunError(StudioError):
    """A run folder is missing, damaged, in use, or in the wrong state for what was asked."""


class TrainingError(StudioError):
    """Training had to stop (non-finite loss, full disk); the last good checkpoint, if there is one, is intact."""

    exit_code = 1


class MachineError(TrainingError):
    """A process was lost, or a file could not be read or written just then; tried again, the run may go on."""


class DivergedError(TrainingError):
    """Loss or weights became non-finite, which they will again at the same settings."""

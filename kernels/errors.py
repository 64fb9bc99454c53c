"""Every error that gossamer raises on purpose, in one tree.

    GossamerError
    ├── InputError (also a ValueError)     what the caller gave cannot be used
    │   ├── VectorError                    a row is no valid sparse vector
    │   ├── RecordError                    a line or row of an input file cannot be read
    │   └── ConfigError                    a preset or setting is unknown or out of range
    ├── BackendError                       the chosen backend cannot run here
    ├── StorageError                       something on disk is not as it should be
    │   ├── FormatError                    not ours, truncated, or from a newer version
    │   ├── CorruptError                   bytes differ from their checksum
    │   ├── ExistsError                    the target exists and was not to be replaced
    │   └── BusyError                      another changes it, and does not end in time
    ├── MismatchError                      two parts were not made for each other (index and encoder)
    ├── NotFoundError                      no such id, user, stage or collection
    ├── TrainingError                      a run collapsed or diverged
    └── ServiceError                       the service could not answer
        ├── TooLargeError                  the request is over one of the limits
        ├── NotReadyError                  the service is still loading, or stopping
        └── UnavailableError               nothing answered, or not in time

A message names the offender, says what was expected, and gives the remedy.
"""


class GossamerError(Exception):
    """Base of all errors that gossamer raises on purpose."""


class InputError(GossamerError, ValueError):
    """What the caller gave cannot be used."""


class VectorError(InputError):
    """A row is no valid sparse vector; the message names the row."""


class RecordError(InputError):
    """A line or row of an input file cannot be read; the message names file and line."""


class ConfigError(InputError):
    """A preset, key or value is unknown or out of range; the message gives the nearest right one."""


class BackendError(GossamerError):
    """The backend that was asked for cannot run here; nothing else is tried in its place."""


class StorageError(GossamerError):
    """Something on disk is not as it should be."""


class FormatError(StorageError):
    """A folder or file is not ours, is truncated, or comes from a newer version."""


class CorruptError(StorageError):
    """A file's bytes differ from the checksum in its manifest."""


class ExistsError(StorageError):
    """The target exists, and the caller did not ask to replace it."""


class BusyError(StorageError):
    """Another process or thread is changing it, and did not end in time; try later."""


class MismatchError(GossamerError):
    """Two parts were not made for each other, such as an index and an encoder."""


class NotFoundError(GossamerError):
    """No such id, user, stage or collection."""


class TrainingError(GossamerError):
    """A training run collapsed (empty vectors) or diverged (a loss that is not finite)."""


class ServiceError(GossamerError):
    """The service could not answer."""


class TooLargeError(ServiceError):
    """The request is over one of the service's limits."""


class NotReadyError(ServiceError):
    """The service is still loading, or is stopping."""


class UnavailableError(ServiceError):
    """Nothing answered at the address, or not within the timeout."""

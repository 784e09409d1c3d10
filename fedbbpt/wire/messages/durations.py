"""Converts seconds to and from google.protobuf.Duration."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration


def duration(seconds: float) -> Duration:
    """Returns the message of a duration in seconds."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def seconds_of(message: Duration) -> float:
    """Returns a message's duration in seconds. A message can hold more than a timedelta can."""
    return message.seconds + message.nanos / 1e9

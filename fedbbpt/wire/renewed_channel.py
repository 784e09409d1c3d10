"""A channel that can be opened anew, with the token and the TLS files as they are then."""

from collections.abc import Callable
from typing import Any

import grpc

from fedbbpt.wire.peers import line_of, set_line


class RenewedChannel(grpc.Channel):
    """Passes each call on to the channel that `open_channel` returned last.

    Calls that are open when the channel is renewed stay on the one before, which closes after the last of them.
    """

    def __init__(self, open_channel: Callable[[], grpc.Channel]) -> None:
        """Opens the channel. Raises what `open_channel` raises."""
        self._open_channel = open_channel
        self.renew()

    def renew(self) -> None:
        """Opens the channel anew for calls from now on. Raises what `open_channel` raises, and then changes nothing."""
        self._channel = self._open_channel()
        set_line(self, line_of(self._channel))

    def _multicallable(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return _Renewed(lambda: self._channel, lambda channel: getattr(channel, kind)(*arguments, **options))

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """Returns the function of an rpc, as the generated stubs ask for it."""
        return self._multicallable("unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Returns the function of an rpc that answers with a stream."""
        return self._multicallable("unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """Returns the function of an rpc that takes a stream."""
        return self._multicallable("stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """Returns the function of an rpc that takes and answers with streams."""
        return self._multicallable("stream_stream", arguments, options)

    def subscribe(self, callback: Any, try_to_connect: Any = False) -> None:
        """Calls back when the state of the current channel changes."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """Ends what `subscribe` began."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Closes the current channel."""
        self._channel.close()

    def __enter__(self) -> "RenewedChannel":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Renewed:
    """An rpc's function, as the generated stubs call it: of the channel that is the current one at each call."""

    def __init__(self, current: Callable[[], grpc.Channel], make: Callable[[grpc.Channel], Any]) -> None:
        self._current, self._make = current, make
        self._channel: grpc.Channel | None = None

    def _function(self) -> Any:
        channel = self._current()
        if channel is not self._channel:
            self._channel, self._made = channel, self._make(channel)
        return self._made

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function()(*arguments, **options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        return self._function().with_call(*arguments, **options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        return self._function().future(*arguments, **options)

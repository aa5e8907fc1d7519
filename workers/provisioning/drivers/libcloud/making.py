"""Libcloud's class of a provider, and objects of it. Imports Libcloud."""

from collections.abc import Callable
from typing import Any

from libcloud.compute.drivers import ec2
from libcloud.compute.providers import DRIVERS, get_driver

from schemas.errors import ConfigurationError
from workers.outside.http import NotSent
from workers.provisioning.drivers.libcloud.call import Call
from workers.provisioning.drivers.libcloud.faults import Scrubber
from workers.provisioning.drivers.libcloud.settings import LibcloudSettings


class Maker:
    """Makes clients of one provider.

    Attributes:
        provider: Libcloud's class.
    """

    def __init__(self, provider: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.provider = provider
        self._arguments = arguments

    def __call__(self) -> Any:
        return self.provider(**self._arguments)

    @staticmethod
    def discard(client: Any) -> None:
        """Let its connection go."""
        connection = getattr(getattr(client, "connection", None), "connection", None)
        session = getattr(connection, "session", None)
        if session is not None:
            session.close()


def maker(where: str, settings: LibcloudSettings, scrubber: Scrubber) -> Maker:
    """
    Args:
        where: the setting, for errors.

    Raises:
        ConfigurationError: there is no such provider, or it does not take these options.
    """
    if settings.provider not in DRIVERS:
        raise ConfigurationError(
            f"{where}: provider: Libcloud has none that is called {settings.provider!r};"
            f" it has {', '.join(sorted(map(str, DRIVERS)))}"
        )
    provider = get_driver(settings.provider)
    # A wait for the network is never longer than a call; its real end is the call's own.
    arguments = {"timeout": settings.seconds, **settings.arguments()}
    if issubclass(provider, ec2.EC2NodeDriver):
        # Of the two kinds of signature that AWS has had, the older one is in the URL.
        arguments.setdefault("signature_version", "4")
    make = Maker(provider, arguments)
    try:
        with Call(0):  # no request is made here
            make()
    except NotSent:
        pass  # it signs in at once, and will in the first call
    except Exception as error:
        words = scrubber.clean(str(error)) or type(error).__name__
        raise ConfigurationError(f"{where}: Libcloud says: {words}") from None
    return make

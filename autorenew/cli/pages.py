"""The process that serves the pages of customers."""

import click

from autorenew.cli.common import on_stop, present, read_database, realms, say
from autorenew.cli.processes import start
from monitoring import metrics
from schemas.settings import load_settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0: any that is free.",
)
def pages(host: str, port: int) -> None:
    """Serve the pages that links in e-mails lead to, until stopped.

    Plain HTTP: a reverse proxy in front of it speaks TLS.
    """
    from producers import counters
    from producers.intake import Intake
    from producers.intake.realms import CUSTOMERS
    from producers.pages import app
    from producers.web.serving import WebServer
    from schemas.catalogue.store import CatalogueCache

    settings = load_settings()
    app.check(settings)
    settings.need("read_database_url")
    engine, fleet_clock = start(settings, "autorenew pages", "api")
    application = app.application(
        settings,
        write=engine,
        read=read_database(settings, application="autorenew pages"),
        intake=Intake(engine, CatalogueCache(), fleet_clock, realms(settings)),
        clock=fleet_clock,
    )
    counters.of_intake(CUSTOMERS)
    metrics.serve(settings)
    server = WebServer(application, host=host, port=port, name="pages")
    present(engine, "pages")
    on_stop(server.stop)
    say(f"pages on {server.url}")
    try:
        server.run()
    finally:
        server.close()

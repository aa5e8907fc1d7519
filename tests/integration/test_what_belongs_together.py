"""A process starts only with the database, the role and the far sides that it belongs with."""

import shlex
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

from autorenew.cli import main
from autorenew.local.postgres import PrivatePostgres
from schemas.database import connect
from schemas.errors import ConfigurationError
from schemas.role_check import check_role
from schemas.settings import load_settings
from schemas.tables import ROLES
from tests.conftest import Database
from workers.bootstrap import check_far_sides
from workers.outside.identity import identity_of

PROCESSES = ("api", "orders", "billing", "reminders", "provisioning", "relay", "scheduler")


@pytest.fixture
def cli(database: Database, postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AUTORENEW_BROKER_URL", "amqp://127.0.0.1:1/none")
    monkeypatch.setenv("AUTORENEW_GATEWAY_URL", "http://127.0.0.1:1/gateway")
    monkeypatch.setenv("AUTORENEW_DRIVER_URLS", '{"web": "http://127.0.0.1:1/web"}')

    def run(role: str, *words: str) -> Result:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", postgres.role_url(database.name, role))
        return CliRunner().invoke(main, words)

    return run


def advised(refused: ConfigurationError) -> str:
    """The command of a message, without the name of the program."""
    return str(refused).partition("`autorenew ")[2].removesuffix("`")


@pytest.mark.parametrize("role", PROCESSES)
def test_a_role_does_its_own_work_and_no_other(database: Database, role: str) -> None:
    check_role(database.engine(role), role)
    for other in PROCESSES:
        if other != role:
            with pytest.raises(ConfigurationError, match=f"connect as autorenew_{other}"):
                check_role(database.engine(role), other)


@pytest.mark.parametrize("role", ROLES)
def test_the_owner_does_the_work_of_every_role(database: Database, role: str) -> None:
    check_role(database.owner, role)


def test_who_was_given_a_role_does_its_work(database: Database) -> None:
    database.run("CREATE ROLE team LOGIN PASSWORD 'x' IN ROLE autorenew_billing, autorenew_orders")
    url = connect(database.url).url.set(username="team", password="x")
    engine = create_engine(url)
    try:
        check_role(engine, "billing", "orders")
        with pytest.raises(ConfigurationError, match="connects as team"):
            check_role(engine, "billing", "provisioning")
    finally:
        engine.dispose()
        database.run("DROP ROLE team")


@pytest.mark.parametrize(
    ("role", "words", "needed"),
    [
        ("billing", ["worker", "orders"], "orders"),
        ("orders", ["worker", "billing"], "billing"),
        ("billing", ["worker", "web"], "provisioning"),
        ("reminders", ["worker", "reminders", "orders"], "orders"),
        ("orders", ["relay"], "relay"),
        ("relay", ["scheduler"], "scheduler"),
        ("scheduler", ["intake"], "api"),
    ],
)
def test_a_process_with_another_roles_url_does_not_start(
    cli: Any, role: str, words: list[str], needed: str
) -> None:
    result = cli(role, *words)

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"connects as autorenew_{role}" in line
    assert f"connect as autorenew_{needed}" in line


class TestFarSides:
    def test_are_written_down_at_first_use(self, database: Database) -> None:
        settings = load_settings(
            gateway_url="https://pay.example/v1/", gateway_token="secret",
            driver_urls={"web": "https://web.example:8443/api", "cloud": "https://cloud.example"},
        )  # fmt: skip

        check_far_sides(database.engine("billing"), settings, ["billing"])
        check_far_sides(database.engine("provisioning"), settings, ["provisioning"])

        query = "SELECT kind, name, identity FROM far_sides ORDER BY 1, 2"
        assert database.all(query) == [
            ("driver", "cloud", "http https://cloud.example"),
            ("driver", "web", "http https://web.example:8443/api"),
            ("gateway", "default", "http https://pay.example/v1"),
        ]

    def test_elsewhere_than_before_nothing_starts(self, cli: Any, database: Database) -> None:
        for role, kind, name in (
            ("billing", "gateway", "default"),
            ("provisioning", "driver", "web"),
        ):
            database.run(
                "INSERT INTO far_sides (kind, name, identity) VALUES (:kind, :name, 'http x')",
                kind=kind, name=name,
            )  # fmt: skip
            result = cli(role, "worker", "billing" if role == "billing" else "web")

            assert result.exit_code == 2
            (line,) = result.stderr.splitlines()
            assert f"{kind} {name} of this database is http x" in line
            assert f"autorenew far-side change {kind} {name} URL" in line

    def test_that_have_moved_are_changed_by_the_owner(self, cli: Any, database: Database) -> None:
        settings = load_settings(gateway_url="https://old.example/v1")
        check_far_sides(database.engine("billing"), settings, ["billing"])
        moved = load_settings(gateway_url="https://new.example/v1")
        with pytest.raises(ConfigurationError, match=r"old\.example"):
            check_far_sides(database.engine("billing"), moved, ["billing"])

        change = ("far-side", "change", "gateway", "default", "https://new.example/v1")
        assert cli("billing", *change).exit_code == 2  # no role may
        result = CliRunner().invoke(main, change, env={"AUTORENEW_DATABASE_URL": database.url})

        assert (result.exit_code, result.output) == (
            0, "gateway default is http https://new.example/v1\n"
        )  # fmt: skip
        check_far_sides(database.engine("billing"), moved, ["billing"])
        listed = cli("readonly", "far-side", "list", "--json")
        assert "https://new.example/v1" in listed.output

    def test_known_by_provider_and_region_may_move_to_another(self, database: Database) -> None:
        def at(region: str) -> None:
            driver = {"kind": "libcloud", "provider": "ec2", "region": region}
            settings = load_settings(drivers={"vm": driver})
            check_far_sides(database.engine("provisioning"), settings, ["provisioning"])

        at("eu-west-1")
        with pytest.raises(ConfigurationError, match="is libcloud ec2 eu-west-1") as refused:
            at("eu-west-3")
        # The command that is advised is the one that helps.
        change = advised(refused.value)
        assert change == "far-side change driver vm 'ec2 eu-west-3' --port-kind libcloud"
        result = CliRunner().invoke(
            main, shlex.split(change), env={"AUTORENEW_DATABASE_URL": database.url}
        )
        assert result.output == "driver vm is libcloud ec2 eu-west-3\n"
        at("eu-west-3")

    def test_clouds_of_one_provider_are_told_apart(self, database: Database) -> None:
        def at(host: str, tenant: str = "shop") -> None:
            url = f"https://user:hunter2@{host}:5000/v3/?token=hunter2"
            options = {"ex_force_auth_url": url, "ex_tenant_name": tenant}
            driver = {"kind": "libcloud", "provider": "openstack", "options": options}
            settings = load_settings(drivers={"vm": driver})
            check_far_sides(database.engine("provisioning"), settings, ["provisioning"])

        at("One.example")
        at("one.example")
        assert database.all("SELECT identity FROM far_sides") == [
            ("libcloud openstack one.example:5000/v3 shop",)
        ]
        with pytest.raises(ConfigurationError, match=r"one\.example:5000/v3 other"):
            at("one.example", "other")
        with pytest.raises(ConfigurationError, match=r"two\.example") as refused:
            at("two.example")
        assert "hunter2" not in str(refused.value)
        change = shlex.split(advised(refused.value))
        result = CliRunner().invoke(main, change, env={"AUTORENEW_DATABASE_URL": database.url})
        assert result.output == "driver vm is libcloud openstack two.example:5000/v3 shop\n"
        at("two.example")

    def test_with_a_url_of_another_kind_are_moved_with_that_kind(self, database: Database) -> None:
        def at(url: str) -> None:
            settings = load_settings(drivers={"dns": {"kind": "powerdns", "url": url}})
            check_far_sides(database.engine("provisioning"), settings, ["provisioning"])

        at("https://one.example/api")
        with pytest.raises(ConfigurationError) as refused:
            at("https://two.example/api")
        change = advised(refused.value)
        assert change == "far-side change driver dns URL --port-kind powerdns"

    def test_that_are_unknown_are_not_changed(self, database: Database) -> None:
        for words, said in (
            (("gateway", "nosuch", "https://x.example"), "there is no gateway 'nosuch'"),
            (("gateway", "default", "ftp://x.example"), "URL must start with https://"),
        ):
            command = ("far-side", "change", *words)
            result = CliRunner().invoke(main, command, env={"AUTORENEW_DATABASE_URL": database.url})
            assert result.exit_code == 2
            assert said in result.stderr

    def test_a_role_says_nothing_of_what_it_does_not_call(self, database: Database) -> None:
        settings = load_settings(gateway_url="https://pay.example")
        check_far_sides(database.engine("billing"), settings, ["billing"])
        with database.engine("provisioning").connect() as tx:
            assert tx.execute(text("SELECT count(*) FROM far_sides")).scalar_one() == 0

    @pytest.mark.parametrize(
        ("options", "identity"),
        [
            ({"kind": "instant"}, "instant"),
            (
                {"url": "https://KEY:pw@Pay.Example:444/v1?token=x#y"},
                "http https://pay.example:444/v1",
            ),
            ({"kind": "acme", "url": "https://a.example"}, "acme https://a.example"),
            ({"kind": "acme", "zone": "eu"}, "acme"),
            (
                {"kind": "libcloud", "provider": "ec2", "region": "eu-west-3", "key": "AKIA1"},
                "libcloud ec2 eu-west-3",
            ),
        ],
    )
    def test_are_known_by_their_kind_and_place_without_secrets(
        self, options: dict[str, Any], identity: str
    ) -> None:
        assert identity_of(options) == identity

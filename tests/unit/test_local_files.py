"""The local Connect's folder is its own, its state outlives it, and its certificate is trusted by those it tells."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import certifi
import pytest

from saga_engine.connect.local_certificate import make_certificate
from saga_engine.connect.local_errors import BadFolder, MissingPackage
from saga_engine.connect.local_faults import Fault, FaultKind
from saga_engine.connect.local_folder import occupy
from saga_engine.connect.local_state import LocalState, record


def test_a_folder_is_made_and_held_until_it_is_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with (
        occupy(folder, is_fresh=False),
        pytest.raises(BadFolder, match=r"another local Connect runs in .*made/here: name another folder, or end that"),
    ):
        occupy(folder, is_fresh=True)
    occupy(folder, is_fresh=False).close()


def test_a_fresh_folder_has_nothing_of_an_earlier_run_and_is_none_of_gits_business(tmp_path: Path) -> None:
    occupy(tmp_path, is_fresh=False).close()
    (tmp_path / "entry_points").mkdir()
    for name in ("saga.db", "state.db", "runner.log", "notes.txt", "entry_points/x"):
        (tmp_path / name).touch()
    occupy(tmp_path, is_fresh=True).close()
    assert {path.name for path in tmp_path.iterdir()} == {"connect.lock", "notes.txt", ".gitignore"}
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_an_earlier_run_is_gone_on_with_unless_it_is_to_be_fresh(tmp_path: Path) -> None:
    occupy(tmp_path, is_fresh=True).close()
    (tmp_path / "saga.db").touch()
    occupy(tmp_path, is_fresh=False).close()
    assert (tmp_path / "saga.db").exists()


def test_a_folder_of_somebody_else_is_never_made_fresh(tmp_path: Path) -> None:
    (tmp_path / "saga.db").touch()
    for _ in range(2):  # nor does the first try make it ours
        with pytest.raises(BadFolder, match="holds other files: name a folder for the local Connect alone"):
            occupy(tmp_path, is_fresh=True)
    assert (tmp_path / "saga.db").exists()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadFolder, match=r"file/folder cannot be used: Not a directory"):
        occupy(tmp_path / "file" / "folder", is_fresh=False)


def test_the_state_outlives_its_restart(tmp_path: Path) -> None:
    state = LocalState(tmp_path / "state.db")
    with state.transaction() as connection:
        record(connection, "effect", "approval", "PR-1", "PR-1")
    state.record_call("approve_request", "PR-1", "TQ-1", 200)
    state.set_fault(Fault("get_request", FaultKind.REFUSE, times=3, reason="no"))
    state.take_fault("get_request")
    state.close()
    state = LocalState(tmp_path / "state.db")
    assert [(each["change"], each["step"], each["object_id"]) for each in state.ledger()] == [
        ("effect", "approval", "PR-1")
    ]
    assert [(each["operation"], each["task_id"], each["status"]) for each in state.calls()] == [
        ("approve_request", "TQ-1", 200)
    ]
    assert state.faults() == [Fault("get_request", FaultKind.REFUSE, times=2, reason="no")]
    state.close()


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    state = LocalState(tmp_path / "state.db")
    with pytest.raises(ZeroDivisionError), state.transaction() as connection:
        record(connection, "effect", "approval", "PR-1", "PR-1")
        raise ZeroDivisionError
    assert state.ledger() == []
    state.close()


def test_a_fault_lasts_for_as_many_calls_as_it_says_and_no_longer(tmp_path: Path) -> None:
    state = LocalState(tmp_path / "state.db")
    state.set_fault(Fault("get_request", FaultKind.REFUSE, times=2))
    taken = [state.take_fault("get_request") for _ in range(3)]
    assert [fault is not None for fault in taken] == [True, True, False]
    assert (state.faults(), state.take_fault("approve_request")) == ([], None)
    state.close()


@pytest.mark.parametrize("name", ["missing/state.db", "no-database"])
def test_a_state_that_cannot_be_opened_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "no-database").write_text("this is no database, but long enough to look like one " * 9)
    with pytest.raises(BadFolder, match=f"{name} cannot be used as a local Connect's state: .*: name another place"):
        LocalState(tmp_path / name)


def test_whoever_trusts_the_file_trusts_the_server_and_all_whom_it_trusted_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    trusted = tmp_path / "trusted.pem"
    server = make_certificate(trusted)
    usual = ssl.create_default_context(cafile=certifi.where()).cert_store_stats()["x509_ca"]
    client = ssl.create_default_context(cafile=str(trusted))
    assert client.cert_store_stats()["x509_ca"] == usual + 1
    _shake_hands(client.wrap_bio, server)


def test_a_certificate_of_another_run_is_not_trusted(tmp_path: Path) -> None:
    make_certificate(tmp_path / "former.pem")
    server = make_certificate(tmp_path / "latter.pem")
    client = ssl.create_default_context(cafile=str(tmp_path / "former.pem"))
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(client.wrap_bio, server)


def _shake_hands(wrap: object, server: ssl.SSLContext) -> None:
    """Let a client and a server agree, without a socket."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        wrap(to_client, to_server, server_hostname="127.0.0.1"),  # type: ignore[operator]
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version()


def test_a_companys_own_authorities_stay_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_certificate(tmp_path / "company.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company.pem"))
    make_certificate(tmp_path / "trusted.pem")
    assert (tmp_path / "trusted.pem").read_bytes().endswith((tmp_path / "company.pem").read_bytes())


def test_without_trustme_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(MissingPackage, match=r"needs trustme: pip install 'saga-engine\[local\]'"):
        make_certificate(tmp_path / "trusted.pem")

"""The bundle example tells its story to the end."""

from __future__ import annotations

from examples.bundle import main


def test_the_bundle_goes_through_and_is_taken_back_by_the_cancel_order(capsys):
    main()
    told = [line.strip() for line in capsys.readouterr().out.splitlines()]
    branches, rest = told[:3], told[3:]
    assert sorted(branches) == ["add 25 users", "create the tenant", "reserve a device"]
    assert branches.index("create the tenant") < branches.index("add 25 users")
    assert rest[:6] == [
        "reserve a telephone number",
        "order the porting",
        "sign the contract",
        "tell billing: it is down, try again",
        "tell billing",
        "BundleSaga:AS-1: COMPLETED",
    ]
    undone = rest[7:-4]
    assert undone[:4] == [
        "tell billing to stop",
        "terminate the contract",
        "withdraw the porting",
        "give the number back",
    ]
    assert undone.index("remove the users") < undone.index("delete the tenant")
    assert undone[-1] == "confirm the cancellation"
    assert [rest[-4], rest[-2]] == ["CancelSaga:PR-2: COMPLETED", "BundleSaga:AS-1: COMPENSATED"]

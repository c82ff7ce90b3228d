"""The plan: how a saga's list, with its groups and child sagas, becomes steps that need each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from connect.eaas.core.responses import BackgroundResponse
from hypothesis import given
from hypothesis import strategies as st
from sagas import DONE, World, saga_of, stable_id
from tenacity import stop_after_attempt, stop_never

from saga_engine import Chain, Exclusive, Parallel, Saga, SagaContext, SagaRecord, SagaStatus, WaitFor
from saga_engine.errors import (
    BadDefinition,
    BadRequest,
    InvalidTransaction,
    SagaError,
    TransactionNotSelected,
    UnknownExecution,
)
from saga_engine.journal import ExclusiveRight, Plan, PlanScope, PlanStep
from saga_engine.plan import Step, Workflow, asks, build_workflow, exclusive_of, plan_of
from saga_engine.saga import Services, check_definition
from saga_engine.services import ServiceProvider
from saga_engine.shape import shape_of
from transactions import BackgroundTransaction, Kind, RetryPolicy, transaction

THRICE = RetryPolicy(stop=stop_after_attempt(3))
FIVE_TIMES = RetryPolicy(stop=stop_after_attempt(5))

PIVOT, RETRIABLE, READ_ONLY, COMPENSATABLE = Kind.PIVOT, Kind.RETRIABLE, Kind.READ_ONLY, Kind.COMPENSATABLE


@dataclass
class Papers:
    """The documents of one drive: a request and a state for each scope, made when first asked for."""

    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    def request(self, scope: str) -> dict[str, Any]:
        return self.requests.setdefault(scope, {"of": scope})

    def context(self, *, scope: str, saga_id: str, saga: str, step: str, path: str) -> SagaContext:
        return SagaContext(saga_id, saga, step, self.states.setdefault(scope, {}), path=path)

    def renew(self, scope: str) -> None:
        self.requests.pop(scope)
        self.states.pop(scope, None)


def no_undo(saga_id: str, note: str) -> SagaRecord:
    raise AssertionError("nothing is undone while a plan is made")


def build(saga: type[Saga], request: Any = None, papers: Papers | None = None, **more: Any) -> Workflow:
    """Build the workflow of one execution, `Order:PR-1`."""
    services = Services(more.pop("config", None), more.pop("client", None), more.pop("logger", None))
    first = {"id": "PR-1"} if request is None else request
    return build_workflow(saga(), first, services, papers or Papers(), "Order:PR-1", no_undo, **more)


def plan(saga: type[Saga], request: Any = None) -> Plan:
    return plan_of(build(saga, request), None)


def needs(plan: Plan) -> dict[str, set[str]]:
    return {step.name: set(step.needs) for step in plan.steps}


def scopes(plan: Plan) -> dict[str, str]:
    return {step.name: step.scope for step in plan.steps}


def step(name: str, **attributes: Any) -> Any:
    return World().step(name, **attributes)


A, B, C, D, E = (step(name) for name in "ABCDE")


# --- chains and groups --------------------------------------------------------------------------------------------


def test_S01_each_step_of_a_list_needs_the_one_before():
    assert needs(plan(saga_of(A, B, C))) == {"A": set(), "B": {"A"}, "C": {"B"}}


def test_S21_branches_need_what_is_before_the_group_and_what_follows_needs_them_all():
    made = plan(saga_of(A, Parallel(B, C), D))
    assert needs(made) == {"A": set(), "B": {"A"}, "C": {"A"}, "D": {"B", "C"}}
    assert scopes(made) == {"A": "", "B": "#1.0", "C": "#1.1", "D": ""}
    assert made.scopes == (PlanScope("#1.0", "", 1), PlanScope("#1.1", "", 1))


def test_S21_a_chain_is_one_branch():
    made = plan(saga_of(Parallel(Chain(A, B), C), D))
    assert needs(made) == {"A": set(), "B": {"A"}, "C": set(), "D": {"B", "C"}}
    assert scopes(made) == {"A": "#1.0", "B": "#1.0", "C": "#1.1", "D": ""}


def test_S21_a_group_in_a_branch_has_scopes_inside_the_branch_and_the_higher_number():
    made = plan(saga_of(Parallel(Chain(A, Parallel(B, C)), D), E))
    assert scopes(made) == {"A": "#1.0", "B": "#1.0/#2.0", "C": "#1.0/#2.1", "D": "#1.1", "E": ""}
    assert needs(made) == {"A": set(), "B": {"A"}, "C": {"A"}, "D": set(), "E": {"B", "C", "D"}}
    assert [(s.id, s.parent, s.group) for s in made.scopes] == [
        ("#1.0", "", 1),
        ("#1.0/#2.0", "#1.0", 2),
        ("#1.0/#2.1", "#1.0", 2),
        ("#1.1", "", 1),
    ]


def test_S21_a_chain_outside_of_a_group_is_as_if_its_entries_were_listed():
    assert plan(saga_of(A, Chain(B, C), D)) == plan(saga_of(A, B, C, D))


@pytest.mark.parametrize("group", [Parallel(B), Parallel(Chain(B)), Chain(Parallel(None, B)), Parallel(B, Chain(), ())])
def test_S21_a_lone_branch_is_no_branch(group):
    assert plan(saga_of(A, group, C)) == plan(saga_of(A, B, C))


@pytest.mark.parametrize("empty", [Parallel(), Chain(), Parallel(Chain(), None), Chain(Parallel(), False)])
def test_S02_a_group_without_entries_is_dropped_as_what_is_falsy(empty):
    assert not empty
    assert plan(saga_of(A, empty, B)) == plan(saga_of(A, B))
    with pytest.raises(TransactionNotSelected, match="listed nothing"):
        build(saga_of(empty))


def test_S02_entries_of_a_group_are_what_a_saga_may_list():
    class Made(BackgroundTransaction):
        def execute(self, request):
            return DONE

    @transaction
    def decorated(request, client):
        return DONE

    group = Parallel(Made, ("tuple", lambda request: True, lambda request: DONE), Chain(decorated, A))
    workflow = build(saga_of(group), client="C")
    assert list(workflow.steps) == ["Made", "tuple", "decorated", "A"]
    assert workflow.steps["decorated"].transaction.execute({}) is DONE


@pytest.mark.parametrize("entry", [[A, B], {A}, 7, "A", object()], ids=stable_id)
def test_S02_a_group_refuses_what_a_saga_may_not_list(entry):
    with pytest.raises(InvalidTransaction, match="is no transaction"):
        build(saga_of(Parallel(entry, C)))


def test_S02_two_branches_may_not_have_one_step_name():
    with pytest.raises(InvalidTransaction, match="Order has two steps named 'A'"):
        build(saga_of(Parallel(Chain(A, B), Chain(A, C))))


def test_a_group_shows_its_entries():
    assert repr(Parallel(Chain(1, 2), 3)) == "Parallel(Chain(1, 2), 3)"


# --- any tree of groups -------------------------------------------------------------------------------------------

Tree = Any  # a name, or ("chain" | "parallel", [Tree, ...])


def _numbered(shape: Tree, names: count[int]) -> Tree:
    if shape is None:
        return f"s{next(names)}"
    kind, parts = shape
    return kind, [_numbered(part, names) for part in parts]


TREES = st.recursive(
    st.none(),
    lambda inner: st.tuples(st.sampled_from(["chain", "parallel"]), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=14,
).map(lambda shape: _numbered(shape, count()))


def _entry(tree: Tree) -> Any:
    if isinstance(tree, str):
        return step(tree)
    kind, parts = tree
    return (Chain if kind == "chain" else Parallel)(*map(_entry, parts))


def _leaves(tree: Tree) -> list[str]:
    return [tree] if isinstance(tree, str) else [leaf for part in tree[1] for leaf in _leaves(part)]


def _before(tree: Tree) -> set[tuple[str, str]]:
    """List all pairs of which the first must be over before the second starts."""
    if isinstance(tree, str):
        return set()
    kind, parts = tree
    pairs = set().union(*(_before(part) for part in parts))
    if kind == "chain":
        for index, part in enumerate(parts):
            pairs |= {(a, b) for a in _leaves(part) for later in parts[index + 1 :] for b in _leaves(later)}
    return pairs


def _branches_around(tree: Tree) -> dict[str, int]:
    """Count the branches around each leaf."""
    if isinstance(tree, str):
        return {tree: 0}
    kind, parts = tree
    more = 1 if kind == "parallel" and len(parts) > 1 else 0
    return {leaf: depth + more for part in parts for leaf, depth in _branches_around(part).items()}


def _closure(plan: Plan) -> set[tuple[str, str]]:
    before: dict[str, set[str]] = {}
    for found in plan.steps:  # a step comes after all that it needs
        before[found.name] = set(found.needs).union(*(before[need] for need in found.needs))
    return {(a, b) for b, found in before.items() for a in found}


@given(TREES)
def test_S21_any_tree_of_groups_keeps_exactly_its_order(tree):
    made = plan(saga_of(_entry(tree)))
    assert [found.name for found in made.steps] == _leaves(tree)
    assert _closure(made) == _before(tree)


@given(TREES)
def test_S21_any_tree_of_groups_gives_each_branch_a_scope_of_its_own(tree):
    made = plan(saga_of(_entry(tree)))
    parents = {scope.id: scope.parent for scope in made.scopes}
    shape = shape_of(made)
    assert {name: len(shape.path_to(scope)) for name, scope in scopes(made).items()} == _branches_around(tree)
    assert len(parents) == len(made.scopes)
    groups = {scope.id: scope.group for scope in made.scopes}
    assert all(groups[parent] < groups[scope] for scope, parent in parents.items() if parent)
    assert sorted(set(groups.values())) == list(range(1, len(set(groups.values())) + 1))


# --- child sagas --------------------------------------------------------------------------------------------------


def test_S22_a_child_saga_is_a_scope_and_its_steps_have_its_name_before_theirs():
    child = saga_of(B, C, name="Child", deadline_s=60)
    made = plan(saga_of(A, child, D))
    assert needs(made) == {"A": set(), "Child/B": {"A"}, "Child/C": {"Child/B"}, "D": {"Child/C"}}
    assert scopes(made) == {"A": "", "Child/B": "Child", "Child/C": "Child", "D": ""}
    assert made.scopes == (PlanScope("Child", "", 1, "Child", "Child", "sagas:Child", 60.0),)


def test_S22_a_grandchild_is_inside_the_child_and_has_the_path_of_both():
    grandchild = saga_of(C, name="Grandchild")
    made = plan(saga_of(saga_of(B, grandchild, name="Child"), D))
    assert list(needs(made)) == ["Child/B", "Child/Grandchild/C", "D"]
    assert [(s.id, s.parent, s.group, s.child, s.saga) for s in made.scopes] == [
        ("Child", "", 1, "Child", "Child"),
        ("Child/Grandchild", "Child", 2, "Child/Grandchild", "Grandchild"),
    ]


def test_S22_a_child_in_a_branch_is_named_by_its_own_path_only():
    child = saga_of(Parallel(A, saga_of(B, name="Inner")), name="Child")
    made = plan(saga_of(Parallel(child, C)))
    assert [(s.id, s.parent, s.group) for s in made.scopes] == [
        ("#1.0", "", 1),
        ("Child", "#1.0", 2),
        ("Child/#3.0", "Child", 3),
        ("Child/#3.1", "Child", 3),
        ("Child/Inner", "Child/#3.1", 4),
        ("#1.1", "", 1),
    ]
    assert scopes(made) == {"Child/A": "Child/#3.0", "Child/Inner/B": "Child/Inner", "C": "#1.1"}


def test_S22_steps_of_a_child_know_the_child_as_their_saga():
    child = saga_of(B, saga_of(C, name="Inner"), name="Child")
    steps = build(saga_of(A, child)).steps
    told = [(s.context.saga_id, s.context.saga, s.context.step, s.context.path) for s in steps.values()]
    assert told == [
        ("Order:PR-1", "Order", "A", "A"),
        ("Order:PR-1/Child", "Child", "B", "Child/B"),
        ("Order:PR-1/Child/Inner", "Inner", "C", "Child/Inner/C"),
    ]
    keys = [s.context.idempotency_key for s in steps.values()]
    assert len(set(keys)) == 3


def test_S22_parent_and_child_may_have_steps_of_one_name():
    assert list(build(saga_of(A, saga_of(A, name="Child"))).steps) == ["A", "Child/A"]


def test_S22_lists_of_children_depend_on_the_request_of_the_start():
    child = saga_of(lambda request: [step(f"for {request['id']}")], name="Child")
    assert list(build(saga_of(child), {"id": "PR-7"}).steps) == ["Child/for PR-7"]


def test_S22_a_child_is_made_with_the_services_of_its_parent():
    class Child(Saga):
        def transactions(self, request):
            return [step(f"{self._services.client} {self._services.config['REGION']}")]

    assert list(build(saga_of(Child), client="C", config={"REGION": "EU"}).steps) == ["Child/C EU"]


def test_S22_a_child_has_its_own_providers_and_none_of_its_parents():
    class Needing(BackgroundTransaction):
        def __init__(self, vendor):
            self.vendor = vendor

        def execute(self, request):
            return DONE

    class Vendor(ServiceProvider):
        def provide_vendor(self, client):
            return f"vendor of {client}"

    child = saga_of(Needing, name="Child", providers={"vendor": Vendor})
    assert build(saga_of(A, child), client="C").steps["Child/Needing"].transaction.vendor == "vendor of C"
    bare = saga_of(Needing, name="Child")
    with pytest.raises(SagaError, match="nothing is bound to it"):
        build(saga_of(A, bare, providers={"vendor": Vendor}))


def test_S22_undos_of_a_childs_steps_are_repeated_as_the_child_says():
    child = saga_of(B, step("C", compensation_retry=FIVE_TIMES), name="Child", compensation_retry=THRICE)
    steps = build(saga_of(A, child)).steps
    assert steps["A"].compensation_retry is Saga.compensation_retry
    assert steps["Child/B"].compensation_retry is THRICE
    assert steps["Child/C"].compensation_retry is FIVE_TIMES


def test_S04_middlewares_of_the_parent_are_outside_those_of_the_child():
    def outer(request, nxt):
        return nxt(request)

    def inner(request, nxt):
        return nxt(request)

    child = saga_of(B, name="Child", middlewares=lambda self, request: [inner])
    steps = build(saga_of(A, child, middlewares=lambda self, request: [outer, None])).steps
    assert steps["A"].middlewares == (outer,)
    assert steps["Child/B"].middlewares == (outer, inner)


def test_S04_a_middleware_class_is_built_for_each_branch_with_the_request_of_the_branch():
    class Keeping:
        def __init__(self, request):
            self.request = request

        def __call__(self, request, nxt):
            return nxt(request)

    papers = Papers()
    saga = saga_of(A, Parallel(B, C), D, middlewares=lambda self, request: [Keeping])
    steps = build(saga, papers=papers).steps
    assert [steps[name].middlewares[0].request["of"] for name in "ABCD"] == ["", "#1.0", "#1.1", ""]
    assert steps["A"].middlewares[0] is steps["D"].middlewares[0]
    assert steps["B"].middlewares[0].request is papers.request("#1.0")


def test_S22_a_step_may_not_have_the_name_of_a_child():
    with pytest.raises(InvalidTransaction, match="Order has two steps named 'Child'"):
        build(saga_of(step("Child"), saga_of(A, name="Child")))


def test_S22_one_saga_may_not_be_two_steps():
    child = saga_of(A, name="Child")
    with pytest.raises(InvalidTransaction, match="Order has two steps named 'Child'"):
        build(saga_of(child, B, child))


def test_S22_a_child_that_lists_nothing_is_told_with_its_path():
    with pytest.raises(TransactionNotSelected, match=r"Child\.transactions\(request\) \(as Child\) listed nothing"):
        build(saga_of(A, saga_of(lambda request: [], name="Child")))


def test_S22_a_saga_without_a_list_of_its_own_is_refused():
    class Base(Saga):
        pass

    for abstract in (Saga, Base):
        with pytest.raises(InvalidTransaction, match=f"{abstract.__name__} is abstract: list a subclass"):
            build(saga_of(A, abstract))


def test_S22_an_instance_of_a_saga_is_refused():
    with pytest.raises(InvalidTransaction, match="lists an instance of Child: list the class"):
        build(saga_of(A, saga_of(B, name="Child")()))


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"mode": "select"}, "mode 'select'"),
        ({"exclusive": Exclusive(key=lambda request: "A-1")}, "an exclusive right"),
        ({"undoes": saga_of(A, name="Purchase")}, "undoes a saga"),
        ({"attempts_max": 0}, "Child.attempts_max is 0"),
    ],
    ids=["select", "exclusive", "undoes", "bad"],
)
def test_S22_a_saga_that_cannot_be_a_step_is_refused(attributes, why):
    with pytest.raises(BadDefinition, match=why):
        build(saga_of(A, saga_of(B, name="Child", **attributes)))


def test_S22_a_saga_that_contains_itself_is_refused():
    inside: list[type[Saga]] = []
    saga = saga_of(lambda request: [A, *inside])
    inside.append(saga)
    with pytest.raises(BadDefinition, match=r"Order contains itself \(Order -> Order\)"):
        build(saga)
    inside[:] = [saga_of(B, saga_of(lambda request: [C, saga], name="Inner"), name="Child")]
    with pytest.raises(BadDefinition, match=r"\(Order -> Child -> Inner -> Order\)"):
        build(saga)


def test_S22_sagas_in_sagas_come_to_an_end():
    def endless(request):
        return [saga_of(endless, name="Again")]

    with pytest.raises(BadDefinition, match="nest at most 16"):
        build(saga_of(endless))


# --- mode select --------------------------------------------------------------------------------------------------


def test_S26_alternatives_do_not_need_each_other():
    made = plan(saga_of(A, B, mode="select"))
    assert (made.mode, needs(made)) == ("select", {"A": set(), "B": set()})


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (Parallel(A, B), BadDefinition),
        (Chain(A, B), BadDefinition),
        (saga_of(B, name="Child"), BadDefinition),
        (WaitFor("approved"), InvalidTransaction),
        (step("A", kind=PIVOT), InvalidTransaction),
    ],
    ids=["parallel", "chain", "child", "signal", "pivot"],
)
def test_S26_what_means_an_order_is_refused_among_alternatives(entry, error):
    with pytest.raises(error, match=r"mode.*'select'"):
        build(saga_of(entry, C, mode="select"))


@pytest.mark.parametrize(
    "attribute", [{"exclusive": Exclusive(key=lambda request: "A-1")}, {"undoes": saga_of(A, name="Purchase")}]
)
def test_S26_a_saga_of_alternatives_has_neither_an_exclusive_right_nor_undoes_one(attribute):
    with pytest.raises(BadDefinition, match="mode 'select'"):
        check_definition(saga_of(A, mode="select", **attribute))


# --- kinds and their order ----------------------------------------------------------------------------------------


def refusal(*entries: Any) -> str:
    with pytest.raises(InvalidTransaction) as refused:
        plan(saga_of(*entries))
    return str(refused.value)


def test_S20_a_compensatable_step_behind_the_pivot_is_refused():
    text = refusal(A, step("Pay", kind=PIVOT), step("Tell", kind=RETRIABLE), B)
    assert text.startswith("B is compensatable and comes after the pivot Pay")


def test_S20_a_compensatable_step_behind_a_childs_pivot_is_refused():
    child = saga_of(step("Pay", kind=PIVOT), step("Tell", kind=RETRIABLE), name="Child")
    assert refusal(A, child, B).startswith("B is compensatable and comes after the pivot Child/Pay")
    inner = saga_of(step("Pay", kind=PIVOT), B, name="Child")
    assert refusal(inner).startswith("Child/B is compensatable and comes after the pivot Child/Pay")


def test_S20_a_compensatable_step_in_a_group_behind_the_pivot_is_refused():
    assert refusal(step("Pay", kind=PIVOT), Parallel(step("Tell", kind=RETRIABLE), B)).startswith("B is compensatable")


def test_S20_a_second_pivot_is_refused():
    assert refusal(step("Pay", kind=PIVOT), step("Ship", kind=PIVOT)).startswith("Ship is a second pivot, after Pay")


def test_S20_a_pivot_inside_a_group_is_refused():
    pay = step("Pay", kind=PIVOT)
    assert refusal(Parallel(pay, B)).startswith("Pay is a pivot inside a parallel group")
    assert refusal(Parallel(saga_of(pay, name="Child"), B)).startswith("Child/Pay is a pivot inside a parallel group")
    assert refusal(saga_of(Parallel(Chain(A, pay), B), name="Child")).startswith("Child/Pay is a pivot inside")


def test_S20_a_pivot_that_would_be_undone_when_unknown_is_refused():
    assert refusal(step("Pay", kind=PIVOT, on_unknown="compensate")).startswith("Pay: on_unknown is 'compensate'")


def test_S20_possible_orders_are_taken():
    entries = [step("Look", kind=READ_ONLY), step("Log", kind=RETRIABLE), A, Parallel(B, C)]
    child = saga_of(step("Pay", kind=PIVOT), step("Bill", kind=RETRIABLE), name="Child")
    behind = [Parallel(step("Tell", kind=RETRIABLE), step("Read", kind=READ_ONLY)), WaitFor("seen")]
    made = plan(saga_of(*entries, child, *behind))
    assert shape_of(made).after_pivot == {"Child/Bill", "Tell", "Read", "Wait for seen"}
    assert plan(saga_of(Parallel(Chain(step("Pay", kind=PIVOT))))).steps[0].kind is PIVOT


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("timeout_s", 0),
        ("timeout_s", -1),
        ("timeout_s", True),
        ("timeout_s", "30"),
        ("timeout_s", float("inf")),
        ("timeout_s", float("nan")),
        ("abandon_s", -0.1),
        ("abandon_s", None),
        ("abandon_s", float("inf")),
        ("is_idempotent", 1),
        ("is_idempotent", None),
        ("on_unknown", "ask"),
        ("kind", "pivot"),
        ("retry", 3),
        ("compensation_retry", 3),
    ],
)
def test_S24_what_a_step_declares_is_checked_by_name(attribute, value):
    bad = step("A")
    setattr(bad, attribute, value)
    with pytest.raises(InvalidTransaction, match=f"A: {attribute} is "):
        build(saga_of(bad))


@pytest.mark.parametrize(("attribute", "value"), [("timeout_s", 0.5), ("timeout_s", None), ("abandon_s", 0)])
def test_S24_times_that_can_be_meant_are_taken(attribute, value, caplog):
    fine = step("A")
    setattr(fine, attribute, value)
    with caplog.at_level(logging.WARNING):
        build(saga_of(fine))
    assert caplog.text == ""


# --- retries ------------------------------------------------------------------------------------------------------


def policies(workflow: Workflow) -> dict[str, str]:
    names = {id(THRICE): "own"}
    return {
        name: names.get(id(s.retry), "for ever" if s.retry.stop is stop_never else "once")
        for name, s in workflow.steps.items()
    }


def test_S20_what_must_succeed_is_attempted_until_it_does_unless_it_says_how_often():
    saga = saga_of(
        A,
        step("Own", retry=THRICE),
        step("Log", kind=RETRIABLE),
        step("Pay", kind=PIVOT),
        step("Read", kind=READ_ONLY),
        step("Bill", kind=RETRIABLE, retry=THRICE),
        step("Tell", kind=RETRIABLE),
    )
    told = {"A": "once", "Own": "own", "Log": "for ever", "Pay": "once", "Read": "for ever", "Bill": "own"}
    assert policies(build(saga)) == {**told, "Tell": "for ever"}


def test_S01_journaled_kinds_win_over_those_of_later_code():
    journaled = plan(saga_of(A, step("Pay", kind=PIVOT), step("Tell", kind=RETRIABLE)))
    workflow = build(saga_of(A, step("Pay"), step("Tell")))
    assert policies(workflow) == {"A": "once", "Pay": "once", "Tell": "once"}
    workflow = build(saga_of(A, step("Pay"), step("Tell")), journaled=journaled)
    assert policies(workflow) == {"A": "once", "Pay": "once", "Tell": "for ever"}
    workflow.rebuild("")
    assert policies(workflow) == {"A": "once", "Pay": "once", "Tell": "for ever"}


def test_S01_the_journaled_order_tells_what_is_behind_the_pivot():
    journaled = plan(saga_of(A, step("Pay", kind=PIVOT), step("Read", kind=READ_ONLY)))
    later = saga_of(step("Read", kind=READ_ONLY), step("New"), step("Pay", kind=PIVOT))
    assert policies(build(later, journaled=journaled)) == {"Read": "for ever", "New": "once", "Pay": "once"}


def test_S01_journaled_scopes_win_over_those_of_later_code():
    journaled = plan(saga_of(A, Parallel(B, C), D))
    papers = Papers()
    later = saga_of(Parallel(A, E), Parallel(D, Chain(C, B)))
    workflow = build(later, papers=papers, journaled=journaled)
    assert {name: s.scope for name, s in workflow.steps.items() if name != "E"} == scopes(journaled)
    assert set(papers.states) <= {"", "#1.0", "#1.1"}
    assert workflow.steps["B"].context.state is papers.states["#1.0"]
    assert workflow.scopes == journaled.scopes
    workflow.rebuild("#1.0")
    assert workflow.steps["B"].scope == "#1.0"


# --- what is journaled --------------------------------------------------------------------------------------------


def test_S01_all_that_the_decider_asks_about_a_step_is_in_the_plan():
    bare = step("bare", undo=None, on_unknown="park")
    probed = step("probed", probe="?", kind=READ_ONLY)
    probed.is_idempotent = True
    made = plan(saga_of(bare, probed, WaitFor("approved", 60)))
    assert made.steps == (
        PlanStep("bare", COMPENSATABLE, (), False, "park", has_undo=False),
        PlanStep("probed", READ_ONLY, ("bare",), True, is_idempotent=True),
        PlanStep("Wait for approved", READ_ONLY, ("probed",), has_undo=False, signal="approved", signal_timeout_s=60.0),
    )


def test_S01_the_exclusive_right_goes_into_the_plan():
    right = ExclusiveRight("A-1", "refuse", "release")
    assert plan_of(build(saga_of(A)), right).exclusive is right


def test_steps_that_are_asked_are_those_with_a_predicate_of_their_own():
    workflow = build(saga_of(A, step("asked", wanted=True), ("t", lambda request: True, lambda request: DONE)))
    assert [s.is_asked for s in workflow.steps.values()] == [False, True, True]
    assert asks(workflow) == 2


# --- building -----------------------------------------------------------------------------------------------------


class Wanting(BackgroundTransaction):
    def __init__(self, client, logger, config, context: SagaContext, request, region="none", *, cache=None):
        self.injected = {"client": client, "config": config, "context": context, "request": request, "region": region}
        self.logger, self.cache = logger, cache

    def execute(self, request):
        return DONE


class Plain(BackgroundTransaction):
    def execute(self, request):
        return DONE


class Helper:
    def __init__(self, context, request):
        self.context, self.request = context, request


class Helped(BackgroundTransaction):
    def __init__(self, helper: Helper):
        self.helper = helper

    def execute(self, request):
        return DONE


def test_S02_a_step_has_injected_what_belongs_to_its_own_scope():
    papers = Papers()
    steps = build(saga_of(A, Parallel(Wanting, B)), papers=papers, client="C", config={"region": "EU"}).steps
    wanting = steps["Wanting"]
    assert wanting.transaction.injected == {
        "client": "C",
        "config": {"region": "EU"},
        "context": wanting.context,
        "request": papers.request("#1.0"),
        "region": "EU",
    }
    assert wanting.transaction.injected["request"] is papers.request("#1.0")
    assert wanting.context.state is papers.states["#1.0"]


def test_S02_a_step_that_is_bound_by_a_provider_is_taken_from_there():
    given = Plain()

    class Binding(ServiceProvider):
        def register(self):
            self.bind_instance(Plain, given)

    assert build(saga_of(Plain, providers={"p": Binding})).steps["Plain"].transaction is given
    assert build(saga_of(Plain)).steps["Plain"].transaction is not given


def test_S02_an_abstract_step_is_refused_with_a_reason():
    class Abstract(BackgroundTransaction):
        pass

    with pytest.raises(SagaError, match="Abstract is abstract"):
        build(saga_of(Abstract))


def test_S02_what_a_steps_own_services_want_is_the_steps_own():
    papers = Papers()
    steps = build(saga_of(Parallel(Helped, A)), papers=papers).steps
    assert steps["Helped"].transaction.helper.context is steps["Helped"].context
    assert steps["Helped"].transaction.helper.request is papers.request("#1.0")


def test_S24_rebuilding_a_scope_gives_its_steps_new_objects_and_leaves_the_others():
    class Keeping:
        def __init__(self, request):
            self.request = request

        def __call__(self, request, nxt):
            return nxt(request)

    class First(Plain):
        pass

    class Last(Plain):
        pass

    papers = Papers()
    child = saga_of(Plain, name="Child")
    saga = saga_of(First, Parallel(Wanting, A), child, Last, middlewares=lambda self, request: [Keeping])
    workflow = build(saga, papers=papers)
    before = dict(workflow.steps)
    papers.renew("")
    workflow.rebuild("")
    assert list(workflow.steps) == list(before)
    for name in ("First", "Last"):
        old, new = before[name], workflow.steps[name]
        assert (new.name, new.scope, new.needs) == (old.name, old.scope, old.needs)
        assert new.transaction is not old.transaction
        assert new.context is not old.context
        assert new.middlewares[0].request is papers.request("") is not old.middlewares[0].request
    for name in ("Wanting", "A", "Child/Plain"):
        assert workflow.steps[name] is before[name]
    workflow.rebuild("Child")
    assert workflow.steps["Child/Plain"].transaction is not before["Child/Plain"].transaction


def test_S24_a_list_that_is_another_one_when_asked_again_is_refused():
    lists = iter([[A, B], [A], [B, A]])
    workflow = build(saga_of(lambda request: next(lists)))
    for _ in range(2):
        with pytest.raises(InvalidTransaction, match="listed other steps when it was asked again"):
            workflow.rebuild("")


# --- WaitFor ------------------------------------------------------------------------------------------------------


def test_S31_a_wait_is_named_after_its_signal_or_as_it_says():
    assert WaitFor("approved").name() == "Wait for approved"
    assert WaitFor("approved", name="Approval").name() == "Approval"
    assert list(build(saga_of(A, WaitFor("approved"))).steps) == ["A", "Wait for approved"]


def test_S31_a_wait_tells_outside_of_a_saga_what_it_waits_for():
    told = WaitFor("approved", timeout_s=60).execute({})
    assert (told.signal, told.timeout_s, told.response.status) == ("approved", 60.0, "reschedule")


@pytest.mark.parametrize(
    "arguments",
    [{"signal": ""}, {"signal": None}, {"signal": 7}, {"signal": " "}]
    + [{"signal": "s", "timeout_s": value} for value in (0, -1, True, "60", float("inf"), float("nan"))]
    + [{"signal": "s", "name": value} for value in ("", " ", 7)],
    ids=stable_id,
)
def test_S31_a_wait_for_nothing_or_no_time_is_refused(arguments):
    with pytest.raises(InvalidTransaction, match=r"WaitFor\((signal|timeout_s|name)="):
        WaitFor(**arguments)


@pytest.mark.parametrize("operation", ["should_execute", "execute", "compensate", "probe"])
def test_S31_code_in_a_wait_is_refused_rather_than_never_called(operation):
    with pytest.raises(InvalidTransaction, match=f"{operation} would never be called"):
        type("Approval", (WaitFor,), {operation: lambda self, request: True})


# --- Exclusive ----------------------------------------------------------------------------------------------------

BY_ASSET = Exclusive(key=lambda request: request["asset"], when_held="refuse", when_parked="release")


def test_the_right_is_named_by_the_key_alone_so_that_sagas_exclude_each_other():
    request = {"id": "PR-1", "asset": "A-1"}
    purchase, cancel = (saga_of(A, name=name, exclusive=BY_ASSET)() for name in ("Purchase", "Cancel"))
    assert exclusive_of(purchase, request) == exclusive_of(cancel, request)
    assert exclusive_of(purchase, request) == ExclusiveRight("A-1", "refuse", "release")


def test_a_saga_without_an_exclusive_right_needs_none():
    assert exclusive_of(saga_of(A)(), {"id": "PR-1"}) is None


@pytest.mark.parametrize("given", ["", None, 7, "x" * 513], ids=["empty", "None", "7", "long"])
def test_S28_a_key_that_names_nothing_is_refused(given):
    saga = saga_of(A, exclusive=Exclusive(key=lambda request: given))()
    with pytest.raises(BadRequest, match=r"Order\.exclusive\.key\(request\) gave .* (must )?give"):
        exclusive_of(saga, {"id": "PR-1"})


def test_S28_a_key_that_the_request_does_not_have_is_told():
    with pytest.raises(BadRequest, match="raised KeyError: 'asset': deliver a request that has its key"):
        exclusive_of(saga_of(A, exclusive=BY_ASSET)(), {"id": "PR-1"})


async def _async_key(request):
    return "A-1"


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": "asset"},
        {"key": str},
        {"key": _async_key},
        {"key": lambda request: "A", "when_held": "queue"},
        {"key": lambda request: "A", "when_parked": None},
    ],
    ids=["text", "class", "async", "when_held", "when_parked"],
)
def test_S28_an_exclusive_that_cannot_be_meant_is_refused(arguments):
    with pytest.raises(BadDefinition, match=r"Exclusive\((key|when_held|when_parked)="):
        Exclusive(**arguments)


def test_S28_exclusive_of_a_saga_must_be_one():
    with pytest.raises(BadDefinition, match=r"Order\.exclusive is 'asset': give Exclusive"):
        check_definition(saga_of(A, exclusive="asset"))


# --- undoes -------------------------------------------------------------------------------------------------------

Purchase = saga_of(A, name="Purchase", key=lambda self, request: request["asset"])


def first_step(saga: type[Saga], undo: Any, request: Any = None) -> Step:
    given = request or {"id": "PR-2", "asset": "AS-1"}
    return next(iter(build_workflow(saga(), given, Services(), Papers(), "Cancel:PR-2", undo).steps.values()))


def standing(status: str, error: str | None = None, next_due_at: float | None = None) -> Any:
    """Answer for an undo: how the undone execution stands."""

    def undo(saga_id: str, note: str) -> SagaRecord:
        return SagaRecord(
            saga_id=saga_id,
            saga="Purchase",
            status=SagaStatus(status),
            generation=1,
            response=None,
            steps=(),
            error=error,
            held_by=None,
            next_due_at=next_due_at,
            created_at=0.0,
            updated_at=100.0,
        )

    return undo


def test_S32_the_first_step_of_a_cancel_order_undoes_the_purchase_of_its_asset():
    asked = []

    def undo(saga_id, note):
        asked.append((saga_id, note))
        return standing("COMPENSATED")(saga_id, note)

    cancel = saga_of(B, name="Cancel", undoes=Purchase)
    made = first_step(cancel, undo)
    assert (made.name, made.needs, made.scope) == ("Undo Purchase", (), "")
    assert made.transaction.execute({}).status == "success"
    assert asked == [("Purchase:AS-1", "undone by a Cancel")]
    plan = plan_of(build(cancel, {"id": "PR-2", "asset": "AS-1"}), None)
    assert needs(plan) == {"Undo Purchase": set(), "B": {"Undo Purchase"}}
    assert (plan.steps[0].kind, plan.steps[0].has_undo, plan.steps[0].is_idempotent) == (COMPENSATABLE, False, True)


@pytest.mark.parametrize("status", ["COMPENSATED", "SKIPPED", "CANCELLED"])
def test_S32_a_purchase_that_has_no_effect_any_more_is_undone(status):
    made = first_step(saga_of(B, name="Cancel", undoes=Purchase), standing(status))
    assert made.transaction.execute({}).status == "success"


@pytest.mark.parametrize("status", ["COMPENSATING", "SUSPENDED", "RUNNING", "COMPLETED"])
@pytest.mark.parametrize(("due_at", "wait_s"), [(None, 30), (110.0, 30), (220.0, 120), (99_999.0, 600)])
def test_S32_an_undo_under_way_is_asked_for_again(status, due_at, wait_s):
    made = first_step(saga_of(B, name="Cancel", undoes=Purchase), standing(status, next_due_at=due_at))
    response = made.transaction.execute({})
    assert (response.status, response.countdown) == ("reschedule", wait_s)


def test_S32_a_parked_purchase_is_named():
    made = first_step(saga_of(B, name="Cancel", undoes=Purchase), standing("PARKED", error="no undo"))
    with pytest.raises(SagaError, match=r"Purchase:AS-1 cannot be undone: it is parked \(no undo\)"):
        made.transaction.execute({})


def test_S32_a_purchase_that_is_not_there_tells_how_it_is_looked_for():
    def undo(saga_id, note):
        raise UnknownExecution("there is none")

    made = first_step(saga_of(B, name="Cancel", undoes=Purchase), undo)
    with pytest.raises(UnknownExecution, match=r"Purchase:AS-1.*Purchase\.key\(request\).*Cancel\.undoes_key"):
        made.transaction.execute({})


def test_S32_what_is_undone_may_be_found_by_a_key_of_its_own():
    cancel = saga_of(B, name="Cancel", undoes=Purchase, undoes_key=lambda self, request: f"{request['id']}-x")
    asked = []
    first_step(cancel, lambda *what: asked.append(what) or standing("COMPENSATED")(*what)).transaction.execute({})
    assert asked[0][0] == "Purchase:PR-2-x"


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "raised KeyError: 'asset': deliver a request that tells which Purchase"),
        ({"undoes_key": lambda self, request: None}, "gave None: it must give a str of 1 to 512"),
        ({"undoes_key": lambda self, request: ""}, "gave '': it must give a str"),
        ({"undoes_key": lambda self, request: "x" * 513}, "it must give a str of 1 to 512"),
    ],
    ids=["missing", "None", "empty", "long"],
)
def test_S28_a_request_that_does_not_tell_what_to_undo_is_refused_before_anything_runs(attributes, why):
    with pytest.raises(BadRequest, match=why):
        first_step(saga_of(B, name="Cancel", undoes=Purchase, **attributes), no_undo, {"id": "PR-2"})


def test_S28_undoes_must_be_another_saga():
    itself = saga_of(A)
    itself.undoes = itself
    for bad in (itself, saga_of(A, undoes="Purchase"), saga_of(A, undoes=Plain)):
        with pytest.raises(BadDefinition, match=r"Order\.undoes is"):
            check_definition(bad)
    with pytest.raises(BadDefinition, match="Order undoes no saga"):
        saga_of(A)().undoes_key({"id": "PR-1"})


# --- @transaction -------------------------------------------------------------------------------------------------


def test_a_decorated_function_declares_all_that_a_class_declares():
    @transaction(
        compensation_retry=THRICE, on_unknown="park", is_idempotent=True, timeout_s=30, abandon_s=5, kind=RETRIABLE
    )
    def ship(request):
        return BackgroundResponse.done()

    made = build(saga_of(ship)).steps["ship"]
    assert made.compensation_retry is THRICE
    declared = made.transaction
    assert (declared.on_unknown, declared.is_idempotent, declared.timeout_s, declared.abandon_s) == (
        "park",
        True,
        30,
        5,
    )
    plain = transaction(lambda request: DONE)
    for attribute in ("kind", "retry", "compensation_retry", "on_unknown", "is_idempotent", "timeout_s", "abandon_s"):
        assert getattr(plain, attribute) == getattr(BackgroundTransaction, attribute)

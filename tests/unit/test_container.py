"""The service container, service providers and the binding of configuration variables."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from abc import ABC, abstractmethod
from logging import LoggerAdapter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Optional, Protocol, TypeVar

import anyio
import pytest

from saga_engine.services import (
    BaseServiceProvider,
    BindingConflict,
    Cache,
    Container,
    DependencyBuildingFailure,
    InvalidClassType,
    MemoryCache,
    ServiceProvider,
    SQLiteCache,
    bind_config,
    provide_cache,
    provide_sqlite_cache_adapter,
    scoped,
)
from transactions.errors import SagaError

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers


DEADLINE_S = 20


class Vendor:
    def __init__(self, token):
        self.token = token


class PurchaseStep:
    def __init__(self, client, vendor: Vendor):
        self.client = client
        self.vendor = vendor


class Clock:
    pass


class Gateway(ABC):
    @abstractmethod
    def send(self): ...


class HttpGateway(Gateway):
    def __init__(self, client):
        self.client = client

    def send(self):
        return self.client


class Chicken:
    def __init__(self, egg: Egg):
        self.egg = egg


class Egg:
    def __init__(self, chicken: Chicken):
        self.chicken = chicken


@pytest.fixture
def logger():
    return logging.getLogger("test_container")


# Resolving parameters


def test_one_constructor_is_injected_by_type_and_by_bare_name(logger):
    class Step:
        def __init__(self, client, logger: LoggerAdapter, config: dict, cache: Cache):
            self.given = (client, logger, config, cache)

    adapter, config, cache = LoggerAdapter(logger, {}), {"A": "1"}, MemoryCache()
    container = Container().bind_instance("client", "C").bind_instance("logger", adapter)
    container.bind_instance("config", config).bind_instance(Cache, cache)

    client, got_logger, got_config, got_cache = container.get(Step).given

    assert client == "C"
    assert got_logger is adapter
    assert got_config is config
    assert got_cache is cache


def test_a_bound_annotation_goes_before_a_bound_name():
    by_type, by_name = Vendor("type"), Vendor("name")
    container = Container().bind_instance(Vendor, by_type).bind_instance("vendor", by_name)

    assert container.child(client=None).get(PurchaseStep).vendor is by_type


def test_a_bound_name_goes_before_a_default():
    class Step:
        def __init__(self, region="eu"):
            self.region = region

    assert Container().bind_instance("region", "us").get(Step).region == "us"
    assert Container().get(Step).region == "eu"


def test_a_default_goes_before_building_the_annotated_class():
    class Step:
        def __init__(self, clock: Clock | None = None):
            self.clock = clock

    assert Container().get(Step).clock is None


def test_an_unbound_concrete_annotation_is_built_with_its_own_dependencies():
    container = Container().bind_instance("client", "C").bind_instance("token", "T")

    assert container.get(PurchaseStep).vendor.token == "T"


def test_a_value_of_none_counts_as_bound():
    class Step:
        def __init__(self, installation="default"):
            self.installation = installation

    assert Container().bind_instance("installation", None).get(Step).installation is None


def test_keyword_only_parameters_are_injected_and_star_parameters_are_left_empty():
    class Step:
        def __init__(self, client, *rest, token, **options):
            self.given = (client, rest, token, options)

    container = Container().bind_instance("client", "C").bind_instance("token", "T")

    assert container.get(Step).given == ("C", (), "T", {})


def test_positional_only_parameters_are_injected():
    class Step:
        def __init__(self, client, /, token):
            self.given = (client, token)

    container = Container().bind_instance("client", "C").bind_instance("token", "T")

    assert container.get(Step).given == ("C", "T")


class Optionals:
    """Module-level, so that its annotations, which are text here, can be found."""

    def __init__(
        self,
        a: Clock | None,
        b: Optional[Clock],  # noqa: UP045  # the older spelling must work too
        c: Annotated[Clock, "note"],
        d: Optional["Clock"],  # noqa: UP037, UP045  # and a name quoted within it
    ):
        self.given = (a, b, c, d)


def test_optional_union_annotated_and_quoted_annotations_name_their_class():
    clock = Clock()

    assert Container().bind_instance(Clock, clock).get(Optionals).given == (clock,) * 4
    assert all(isinstance(built, Clock) for built in Container().get(Optionals).given)


Item = TypeVar("Item")


class Repository(Generic[Item]):
    pass


class WantsRepository:
    def __init__(self, vendors: Repository[Vendor]):
        self.vendors = vendors


def test_a_generic_annotation_names_its_class():
    repository = Repository()

    assert Container().bind_instance(Repository, repository).get(WantsRepository).vendors is repository


class Unresolvable:
    def __init__(self, amount: OnlyForTypeCheckers, other: NoSuchName[1], broken: 1 / 0):  # noqa: F821
        self.given = (amount, other, broken)


def test_annotations_that_cannot_be_resolved_fall_back_to_the_name():
    container = Container().child(amount=1, other=2, broken=3)

    assert container.get(Unresolvable).given == (1, 2, 3)


def test_types_of_python_itself_are_never_built_in_place_of_a_forgotten_binding():
    class Step:
        def __init__(self, folder: Path):
            self.folder = folder

    with pytest.raises(DependencyBuildingFailure, match="folder"):
        Container().get(Step)


def test_a_union_of_two_unbound_classes_is_not_guessed():
    with pytest.raises(DependencyBuildingFailure, match="either"):
        Container().arguments_for(_wants_either, skip=0)


def _wants_either(either: Clock | Vendor): ...


# Asking


def test_get_gives_what_is_bound_to_a_name_or_a_type():
    container = Container().bind_instance("token", "T").bind_instance(Gateway, "G")

    assert container.get("token") == "T"
    assert container.get(Gateway) == "G"


@pytest.mark.parametrize("key", [42, None, [], ("a",)])
def test_get_of_neither_a_name_nor_a_type_is_an_invalid_class_type(key):
    with pytest.raises(InvalidClassType, match="name or a class"):
        Container().get(key)


def test_get_of_an_unbound_name_says_how_to_bind_it():
    with pytest.raises(DependencyBuildingFailure) as failure:
        Container().get("token")

    assert "'token'" in str(failure.value)
    assert "bind_instance('token', ...)" in str(failure.value)
    assert "provide_token" in str(failure.value)


def test_get_of_an_unbound_abstract_class_or_protocol_asks_for_an_implementation():
    class Port(Protocol):
        def send(self) -> None: ...

    for key in (Gateway, Port):
        with pytest.raises(DependencyBuildingFailure, match=rf"bind_class\({key.__name__}, \.\.\.\)"):
            Container().get(key)


def test_a_missing_argument_is_named_with_its_class_and_the_chain_of_requests():
    with pytest.raises(DependencyBuildingFailure) as failure:
        Container().bind_instance("client", "C").get(PurchaseStep)

    message = str(failure.value)
    assert message.endswith("\n  PurchaseStep\n  └─ vendor: Vendor\n     └─ token, to which nothing is bound")
    assert "Vendor wants the argument 'token'" in message
    assert "bind_instance('token', ...)" in message


def test_the_chain_of_requests_names_provider_methods():
    class VendorProvider(ServiceProvider):
        def provide_vendor(self, token): ...

    class Step:
        def __init__(self, vendor): ...

    with pytest.raises(DependencyBuildingFailure) as failure:
        Container([VendorProvider()]).get(Step)

    assert "\n  Step\n  └─ vendor: VendorProvider.provide_vendor\n     └─ token" in str(failure.value)


def test_the_advice_in_a_failure_names_only_what_would_work():
    def step(request, client: Any, gateway: Gateway): ...

    with pytest.raises(DependencyBuildingFailure) as failure:
        Container().arguments_for(step)
    assert "bind_instance('client', ...)" in str(failure.value)
    assert "bind_class" not in str(failure.value)
    assert "variable CLIENT" not in str(failure.value)

    with pytest.raises(DependencyBuildingFailure) as failure:
        Container().child(client="C").arguments_for(step)
    assert "bind_class(Gateway, ...)" in str(failure.value)
    assert "variable GATEWAY" in str(failure.value)


def test_a_shared_service_that_wants_what_only_a_child_binds_is_told_so():
    parent = Container().bind_class(Vendor, Vendor, scope="singleton")

    with pytest.raises(DependencyBuildingFailure) as failure:
        parent.child(client="C", token="T").get(PurchaseStep)

    assert "bound in a child scope only is not seen: Vendor is built for its parent" in str(failure.value)


def test_an_annotation_that_says_nothing_is_resolved_by_name():
    def step(request, payload: object, anything: Any, nothing: None): ...

    container = Container().child(payload=1, anything=2, nothing=3)

    assert container.arguments_for(step) == {"payload": 1, "anything": 2, "nothing": 3}
    with pytest.raises(DependencyBuildingFailure, match="payload"):
        Container().arguments_for(step)


def test_a_cycle_of_classes_is_shown():
    with pytest.raises(DependencyBuildingFailure, match="Chicken -> Egg -> Chicken"):
        Container().get(Chicken)


def test_a_cycle_of_provider_methods_is_shown():
    class Circular(ServiceProvider):
        def provide_a(self, b): ...

        def provide_b(self, a): ...

    with pytest.raises(DependencyBuildingFailure) as failure:
        Container([Circular()]).get("a")

    assert "Circular.provide_a -> Circular.provide_b -> Circular.provide_a" in str(failure.value)


def test_a_class_whose_parameters_cannot_be_read_is_a_building_failure():
    with pytest.raises(DependencyBuildingFailure, match="cannot be read"):
        Container().get(_Unreadable)


class _Unreadable:
    __signature__ = "nonsense"


def test_an_error_of_the_constructor_itself_is_not_disguised():
    class Broken:
        def __init__(self):
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        Container().get(Broken)


def test_the_container_itself_can_be_injected_and_is_the_scope_that_resolves():
    class Factory:
        def __init__(self, container: Container):
            self.container = container

    parent = Container().bind_instance("a", 1)
    child = parent.child(b=2)

    assert child.get(Container) is child
    # The local annotation is text that names a module-level class.
    assert child.get(Factory).container is child


def test_the_parameters_of_a_class_are_inspected_once_for_all_containers(monkeypatch):
    class Step:
        def __init__(self, client):
            self.client = client

    Container().child(client=1).get(Step)
    monkeypatch.setattr("saga_engine.services.plans._signature", _must_not_be_called)

    assert Container().child(client=2).get(Step).client == 2


def _must_not_be_called(target):
    raise AssertionError(f"{target} was inspected again")


# Binding


def test_bind_class_gives_a_new_instance_per_request():
    container = Container().bind_class("clock", Clock)

    assert isinstance(container.get("clock"), Clock)
    assert container.get("clock") is not container.get("clock")


def test_bind_class_as_singleton_gives_one_instance():
    container = Container().bind_class("clock", Clock, scope="singleton")

    assert container.get("clock") is container.get("clock")


def test_a_type_can_be_bound_to_its_implementation_and_to_itself():
    container = Container().bind_instance("client", "C").bind_class(Gateway, HttpGateway)
    container.bind_class(Clock, Clock, scope="singleton")

    assert container.get(Gateway).send() == "C"
    assert container.get(Clock) is container.get(Clock)


@pytest.mark.parametrize(
    ("cls", "scope", "says"),
    [
        ("not a class", "transient", "not a class"),
        (Gateway, "transient", "Gateway is abstract"),
        (Clock, "request", "'request' is unknown"),
    ],
)
def test_bind_class_refuses_what_cannot_be_built(cls, scope, says):
    with pytest.raises(InvalidClassType, match=says):
        Container().bind_class("key", cls, scope=scope)


@pytest.mark.parametrize("key", [42, None, "", "  "])
def test_a_key_must_be_a_name_or_a_type(key):
    with pytest.raises(InvalidClassType, match="neither a name nor a type"):
        Container().bind_instance(key, "value")


def test_a_key_bound_twice_is_a_conflict_that_names_both_places():
    container = Container().bind_instance("token", "first")

    with pytest.raises(BindingConflict) as conflict:
        container.bind_class("token", Clock)

    assert str(conflict.value).count("test_container.py:") == 2
    assert "bind_instance('token')" in str(conflict.value)
    assert "bind_class('token')" in str(conflict.value)
    assert container.get("token") == "first"


def test_two_providers_of_one_key_are_a_conflict_that_names_both():
    class First(ServiceProvider):
        def provide_token(self): ...

    class Second(ServiceProvider):
        def register(self):
            self.bind_instance("token", "T")

    with pytest.raises(BindingConflict, match=r"First\.provide_token and by Second\.register"):
        Container([First(), Second()])


def test_a_provider_in_conflict_leaves_nothing_bound():
    class Late(ServiceProvider):
        def provide_other(self):
            return "O"

        def provide_token(self): ...

    container = Container().bind_instance("token", "T")

    with pytest.raises(BindingConflict):
        container.bind_provider(Late())
    with pytest.raises(DependencyBuildingFailure):
        container.get("other")


# Scopes


def test_bindings_of_a_child_win_and_do_not_reach_the_parent():
    parent = Container().bind_instance("token", "parent's")
    child = parent.child(token="child's", request={"id": "PR-1"})

    assert child.get(Vendor).token == "child's"
    assert parent.get(Vendor).token == "parent's"
    with pytest.raises(DependencyBuildingFailure):
        parent.get("request")


def test_a_child_falls_back_to_its_ancestors():
    grandchild = Container().bind_instance("token", "T").child(a=1).child(b=2)

    assert [grandchild.get(key) for key in ("token", "a", "b")] == ["T", 1, 2]


def test_a_name_may_be_bound_that_is_also_a_parameter_of_child():
    assert Container().child(self="S").get("self") == "S"


def test_a_transient_class_of_the_parent_is_built_with_the_childs_bindings():
    parent = Container().bind_instance("token", "parent's").bind_class("vendor", Vendor)

    assert parent.child(token="child's").get("vendor").token == "child's"


def test_a_singleton_of_the_parent_is_shared_and_never_sees_a_childs_bindings():
    parent = Container().bind_instance("token", "parent's").bind_class("vendor", Vendor, scope="singleton")
    child = parent.child(token="child's")

    assert child.get("vendor").token == "parent's"
    assert child.get("vendor") is parent.get("vendor")


class Node:
    def __init__(self, following):
        self.following = following


class FollowingProvider(ServiceProvider):
    def provide_following(self, node):
        return node


def test_building_one_class_in_two_scopes_is_not_mistaken_for_a_cycle():
    parent = Container().bind_instance("following", "end").bind_class("node", Node, scope="singleton")
    child = parent.child().bind_provider(FollowingProvider())

    assert child.get(Node).following is parent.get("node")
    assert parent.get("node").following == "end"


# Providers


class GreetingProvider(ServiceProvider):
    calls = 0

    def register(self):
        self.bind_instance("name", "Ada").bind_class("clock", Clock)

    def provide_greeting(self, name, clock):
        type(self).calls += 1
        return [f"Hello {name}", clock]

    def provide_shout(self, greeting):
        return greeting[0].upper()


def test_provider_methods_are_injected_chained_and_called_once_per_container():
    GreetingProvider.calls = 0
    container = Container([GreetingProvider()])

    assert container.get("shout") == "HELLO ADA"
    assert container.get("greeting") is container.child().get("greeting")
    assert GreetingProvider.calls == 1


def test_provider_methods_are_called_only_when_their_result_is_wanted():
    GreetingProvider.calls = 0

    Container([GreetingProvider()]).get("name")

    assert GreetingProvider.calls == 0


def test_one_provider_serves_several_containers_with_results_of_their_own():
    provider = GreetingProvider()
    first, second = Container([provider]), Container([provider])

    assert first.get("greeting") == [*first.get("greeting")]
    assert first.get("greeting") is not second.get("greeting")


def test_a_provider_may_be_given_as_a_class():
    assert Container([GreetingProvider]).get("name") == "Ada"


def test_bindings_made_on_a_provider_from_outside_are_kept_for_every_container():
    provider = ServiceProvider().bind_instance("token", "T").bind_class("clock", Clock, scope="singleton")

    for container in (Container([provider]), Container([provider])):
        assert container.get("token") == "T"
        assert container.get("clock") is container.get("clock")


def test_bindings_made_on_a_provider_after_it_was_bound_count_for_later_containers():
    provider = GreetingProvider()
    earlier = Container([provider])
    provider.bind_instance("token", "T")

    assert Container([provider]).get("token") == "T"
    with pytest.raises(DependencyBuildingFailure):
        earlier.get("token")


def test_a_provider_that_binds_on_another_one_while_it_registers_does_not_get_that_binding():
    other = ServiceProvider()

    class Outer(ServiceProvider):
        def register(self):
            self.bind_instance("own", 1)
            other.bind_instance("other's", 2)

    outer = Container([Outer()])

    assert outer.get("own") == 1
    assert Container([other]).get("other's") == 2
    with pytest.raises(DependencyBuildingFailure):
        outer.get("other's")


def test_a_provider_that_binds_one_key_twice_is_in_conflict_with_itself():
    class Twice(ServiceProvider):
        def register(self):
            self.bind_instance("token", 1)

        def provide_token(self): ...

    with pytest.raises(BindingConflict, match=r"Twice\.register and by Twice\.provide_token"):
        Container([Twice()])


def test_a_provider_need_not_call_the_constructor_of_its_base():
    class Own(ServiceProvider):
        def __init__(self, token):
            self.token = token

        def register(self):
            self.bind_instance("token", self.token)

    assert Container([Own("T")]).get("token") == "T"


def test_inherited_static_and_class_methods_provide_too():
    class Child(GreetingProvider):
        @staticmethod
        def provide_port(name):
            return f"port of {name}"

        @classmethod
        def provide_kind(cls, port):
            return f"{cls.__name__}, {port}"

    container = Container([Child()])

    assert container.get("kind") == "Child, port of Ada"
    assert container.get("shout") == "HELLO ADA"


def test_an_async_provider_method_that_nothing_could_share_is_refused():
    class Generator(ServiceProvider):
        async def provide_client(self):
            yield "C"

    class Transient(ServiceProvider):
        @scoped("transient")
        async def provide_client(self): ...

    with pytest.raises(InvalidClassType, match=r"Generator\.provide_client is a generator"):
        Container([Generator()])
    with pytest.raises(InvalidClassType, match=r"Transient\.provide_client is async and transient"):
        Container([Transient()])


def test_what_is_no_provider_is_refused():
    with pytest.raises(InvalidClassType, match="is no service provider"):
        Container([42])


def test_a_shared_result_is_made_once_however_many_threads_ask_at_once():
    barrier = threading.Barrier(8)
    made = []
    second = threading.Event()

    class Slow(ServiceProvider):
        def provide_token(self):
            made.append(threading.get_ident())
            if len(made) > 1:
                second.set()
            second.wait(0.05)  # gives a second call, which must not come, the time to come
            return object()

    container = Container([Slow()])
    results = []

    def ask():
        barrier.wait(10)
        results.append(container.child().get("token"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(results) == 8
    assert len(set(map(id, results))) == 1
    assert len(made) == 1


def test_a_failed_provider_method_is_called_again_at_the_next_request():
    class Flaky(ServiceProvider):
        answers = iter([ConnectionError("down"), "up"])

        def provide_api(self):
            answer = next(self.answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    container = Container([Flaky()])

    with pytest.raises(ConnectionError):
        container.get("api")
    assert container.get("api") == "up"


class CacheServiceProvider(BaseServiceProvider):
    """The example of Connect's fulfillment framework, word for word."""

    def provide_cache(self, config: dict, logger: LoggerAdapter) -> Cache:
        return provide_cache(config, logger, {
            'sqlite': provide_sqlite_cache_adapter,
        })  # fmt: skip


class CreateUserTransaction:
    def __init__(self, cache: Cache):
        self.cache = cache


def test_the_cache_provider_of_the_fulfillment_framework_runs_unchanged(tmp_path, logger):
    config = {"CACHE_DIR": str(tmp_path)}
    container = bind_config(Container([CacheServiceProvider()]), config, logger)
    container.bind_instance("logger", LoggerAdapter(logger, {}))

    cache = container.get(CreateUserTransaction).cache
    cache.put("user", {"id": 1})

    assert isinstance(cache, SQLiteCache)
    assert cache.get("user") == {"id": 1}
    assert container.child().get("cache") is cache
    cache.close()


# Configuration variables


def test_configuration_variables_are_bound_stripped_in_lower_case_with_their_values_as_they_are(logger):
    config = {"VENDOR_TOKEN": " T ", " Api_Url ": "https://vendor", "LIMITS": {"a": 1}, "PORT": 443}
    container = bind_config(Container(), config, logger)

    assert container.get("vendor_token") == " T "
    assert container.get("api_url") == "https://vendor"
    assert container.get("limits") is config["LIMITS"]
    assert container.get("port") == 443
    assert container.get("config") is config


@pytest.mark.parametrize("name", ["CLIENT", "Logger", " config ", "request", "CONTEXT", "cache"])
def test_a_variable_named_like_a_core_service_does_not_replace_it_and_is_warned_about(name, caplog, logger):
    core = name.strip().lower()
    config = {name: "secret value"}

    container = bind_config(Container().child(), config, logger)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert repr(name) in caplog.text
    assert repr(core) in caplog.text
    assert "secret value" not in caplog.text
    if core == "config":
        assert container.get("config") is config
    else:
        with pytest.raises(DependencyBuildingFailure):
            container.get(core)


def test_a_variable_without_a_usable_name_is_skipped(logger):
    container = bind_config(Container(), {42: "number", "  ": "blank", None: "none", "OK": "kept"}, logger)

    assert container.get("ok") == "kept"


def test_two_variables_of_one_name_conflict_only_if_their_values_differ(logger):
    assert bind_config(Container(), {"TOKEN": "T", "token ": "T"}, logger).get("token") == "T"

    with pytest.raises(BindingConflict, match="'TOKEN' and 'token '") as conflict:
        bind_config(Container(), {"TOKEN": "s3cret", "token ": "other"}, logger)
    assert "s3cret" not in str(conflict.value)


def test_a_variable_that_is_bound_already_is_a_conflict_that_names_it(logger):
    container = Container().bind_instance("vendor", 1)

    with pytest.raises(BindingConflict, match="configuration variable 'VENDOR'"):
        bind_config(container, {"VENDOR": "x"}, logger)
    with pytest.raises(DependencyBuildingFailure):
        container.get("config")


def test_a_configuration_that_is_no_mapping_is_refused(logger):
    with pytest.raises(SagaError, match="must be a dict of variables, not list"):
        bind_config(Container(), ["A"], logger)


# Arguments of functions


def test_arguments_for_gives_a_value_for_each_parameter_after_the_skipped_ones():
    def step(request, client, clock: Clock, *, token):
        return request, client, clock, token

    container = Container().child(client="C", token="T", clock="named")

    assert container.arguments_for(step) == {"client": "C", "clock": "named", "token": "T"}
    assert step({}, **container.arguments_for(step)) == ({}, "C", "named", "T")


def test_arguments_for_leaves_out_what_has_a_default_and_no_binding():
    def step(request, client, region="eu"): ...

    assert Container().child(client="C").arguments_for(step) == {"client": "C"}
    assert Container().child(client="C", region="us").arguments_for(step) == {"client": "C", "region": "us"}


def test_arguments_for_names_the_function_that_wants_what_is_missing():
    def create_customer(request, token): ...

    with pytest.raises(DependencyBuildingFailure, match=r"create_customer\n  └─ token"):
        Container().arguments_for(create_customer)


class Steps:
    __hash__ = None  # what a bound method belongs to need not be hashable

    def method(self, request, client): ...

    def __call__(self, request, token): ...


def test_arguments_for_takes_bound_methods_and_callable_objects():
    container = Container().child(client="C", token="T")

    assert container.arguments_for(Steps().method) == {"client": "C"}
    assert container.arguments_for(Steps()) == {"token": "T"}
    assert container.arguments_for(Steps().method, skip=2) == {}


def test_arguments_for_takes_partial_functions():
    def step(region, request, client, token): ...

    container = Container().child(client="C", token="T")

    assert container.arguments_for(functools.partial(step, "eu")) == {"client": "C", "token": "T"}


class WantsNothing:
    pass


class WantsWhatIsThere:
    def __init__(self, client, context, region="none", *more, **others):
        self.given = (client, context, region)


class WantsByKeyword:
    def __init__(self, client, *, context):
        self.given = (client, context)


class WantsAService:
    def __init__(self, step: PurchaseStep, context):
        self.given = (step.client, step.vendor.token, context)


class WantsAProvidedService:
    def __init__(self, made, context):
        self.given = (made, context)


class WantsTheContainer:
    def __init__(self, container: Container):
        self.given = container.get("context")


class WantsWhatNobodyHas:
    def __init__(self, client, unheard_of):
        pass


class Bound:
    def __init__(self):
        self.given = "built"


class Making(ServiceProvider):
    def provide_made(self, token):
        return f"made with {token}"


class Refusing(type):
    @property
    def __signature__(cls):
        raise ValueError("not to be read")


class Unreadable(metaclass=Refusing):
    pass


def outcome(build):
    try:
        built = build()
    except SagaError as error:
        return type(error), str(error)
    return type(built), getattr(built, "given", None)


@pytest.mark.parametrize(
    "cls",
    [
        WantsNothing,
        WantsWhatIsThere,
        WantsByKeyword,
        WantsAService,
        WantsAProvidedService,
        WantsTheContainer,
        WantsWhatNobodyHas,
        Bound,
        Gateway,
        Unreadable,
    ],
)
def test_get_inside_gives_what_a_child_scope_gives(cls):
    container = Container([Making]).child(client="C", token="T", context="outer")
    given = Bound()
    given.given = "bound"
    container.bind_instance(Bound, given)
    in_a_scope = outcome(lambda: container.child(context="inner").get(cls))
    assert outcome(lambda: container.get_inside(cls, lambda: {"context": "inner"})) == in_a_scope


def test_get_inside_asks_for_values_only_if_they_are_wanted():
    def instances():
        raise AssertionError("nobody wants them")

    assert isinstance(Container().get_inside(WantsNothing, instances), WantsNothing)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")  # which is what is tested
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["application", "plugin"])
def test_a_forked_child_does_not_wait_for_what_its_parent_is_building(kind, is_async):
    parent, begun, may_go = os.getpid(), threading.Event(), threading.Event()

    def build():
        if os.getpid() == parent:
            begun.set()
            assert may_go.wait(DEADLINE_S)
        return "built"

    class Slow(ServiceProvider):
        @scoped(kind)
        def provide_session(self):
            return build()

    class AsyncSlow(ServiceProvider):
        @scoped(kind)
        async def provide_session(self):
            return await anyio.to_thread.run_sync(build)

    scope = Container([AsyncSlow if is_async else Slow]).scope("plugin")
    builder = threading.Thread(target=anyio.run, args=[scope.aget, "session"])
    builder.start()
    assert begun.wait(DEADLINE_S)
    child = os.fork()
    if child == 0:
        answer = None
        try:
            # Not in a thread of its own, which may get the identity of the one that holds the lock.
            signal.alarm(DEADLINE_S)
            answer = anyio.run(scope.aget, "session")
        finally:
            os._exit(0 if answer == "built" else 1)
    _, status = os.waitpid(child, 0)
    may_go.set()
    builder.join(DEADLINE_S)
    assert status == 0

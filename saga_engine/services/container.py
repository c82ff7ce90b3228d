"""The service container: one resolver whose keys are names or types, with parent and child scopes.

A parameter is resolved in this order: by its annotation, if that class is bound; by its name, if that is
bound; by its default; by building its annotated class, if that is a concrete class of someone's own code.
What cannot be resolved is a `DependencyBuildingFailure` that draws the chain of requests.

Scopes: `child()` falls back to its parent. What is kept (see `saga_engine.services.bindings` for how long) is built
in the scope that keeps it, so it never sees a child's bindings. All else is built for the scope that asks.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, overload
from weakref import WeakSet

import anyio

from saga_engine.services.bells import Bell
from saga_engine.services.bindings import (
    Binding,
    Registration,
    Scope,
    check_key,
    class_registration,
)
from saga_engine.services.failures import (
    AsyncServiceWanted,
    BindingConflict,
    DependencyBuildingFailure,
    InvalidClassType,
    Link,
    drawing_of,
    name_of,
    show_key,
)
from saga_engine.services.overrides import Layer, Overrides
from saga_engine.services.plans import (
    ABSENT,
    Key,
    Parameter,
    is_concrete,
    is_pythons_own,
    plan_of_callable,
    plan_of_unbound,
)

if TYPE_CHECKING:
    from saga_engine.services.providers import ServiceProvider

__all__ = ["CORE_SERVICE_NAMES", "Container", "registrations_of", "wants_nothing"]

T = TypeVar("T")

#: Names that the engine binds itself; a configuration variable never takes one of them.
CORE_SERVICE_NAMES = frozenset({"cache", "client", "config", "context", "logger", "request"})


class _Request(NamedTuple):
    """One call of `get`: the overrides that were open when it began, and the requests that led to where it is.

    `home`: the scope of the plugin whose service is being built, where what is bound nowhere else is looked for.
    """

    layers: tuple[Layer, ...] = ()
    links: tuple[Link, ...] = ()
    home: Container | None = None


class _Making:
    """Stands where a value is kept while an async provider is awaited.

    Args:
        task_id: the task that awaits it, as anyio names it.
    """

    def __init__(self, task_id: int) -> None:
        self.task_id = task_id
        self.is_over = Bell()


#: What tasks wait for that others are making, by the id of the task: two must not wait for each other. The lock is held
#: for moments only, so that a fork can take it.
_waited_for: dict[int, _Making] = {}
_waiting_lock = threading.Lock()


_PLAIN_REQUEST = _Request()


class Container:
    """Builds services and injects what their constructors name.

    Safe to use from several threads and event loops: what is kept is built once, whoever asks first.
    `get(Container)` and a parameter annotated `Container` give the scope that resolves.

    Args:
        providers: service providers to bind, as `bind_provider` does.

    Raises:
        BindingConflict: two of the providers bind one key.
    """

    __slots__ = (
        "__weakref__",
        "_asyncs",
        "_bindings",
        "_building",
        "_kept",
        "_kind",
        "_lock",
        "_overrides",
        "_parent",
        "_types",
    )

    def __init__(self, providers: Iterable[ServiceProvider | type[ServiceProvider]] = ()) -> None:
        self._bindings: dict[Key, Binding] = {}
        self._kept: dict[Any, Any] = {}
        #: What is being built to be kept here; under the lock.
        self._building: list[Any] = []
        self._parent: Container | None = None
        self._kind: str | None = "application"
        self._lock = threading.RLock()
        self._overrides = Overrides()
        #: How many types, and how many async providers, are bound here.
        self._types = self._asyncs = 0
        _lasting.add(self)
        for provider in providers:
            self.bind_provider(provider)

    # --- binding ---

    def bind_instance(self, key: Key, value: Any) -> Container:
        """Bind a name or a type to this very value; returns the container itself.

        Raises:
            InvalidClassType: the key is neither a non-empty str nor a type.
            BindingConflict: the key is bound in this scope already.
        """
        origin = _caller(f"bind_instance({show_key(key)})")
        return self.bind_registrations([Registration(key, value, "instance", origin)])

    def bind_class(self, key: Key, cls: type, scope: Scope = "transient") -> Container:
        """Bind a name or a type to a class that the container builds; returns the container itself.

        Args:
            key: the name or type to bind.
            cls: the concrete class; its constructor is injected.
            scope: how long an instance lives; "transient" builds a new one per request, "singleton" one for this
                scope and its children. For the others see `saga_engine.services.bindings`.

        Raises:
            InvalidClassType: the key is neither name nor type, `cls` is no class, or the scope is unknown.
            BindingConflict: the key is bound in this scope already.
        """
        origin = _caller(f"bind_class({show_key(key)})")
        return self.bind_registrations([class_registration(key, cls, scope, origin)])

    def bind_provider(self, provider: ServiceProvider | type[ServiceProvider]) -> Container:
        """Bind all that a service provider registers and provides, or nothing if one of its keys is taken.

        Args:
            provider: the provider, or its class if it is built without arguments.

        Raises:
            InvalidClassType: this is no service provider.
            BindingConflict: a key is bound in this scope already.
        """
        return self.bind_registrations(registrations_of(provider))

    def bind_registrations(self, registrations: Iterable[Registration]) -> Container:
        """Bind all of these or none; returns the container itself.

        Raises:
            InvalidClassType: a key is neither a non-empty str nor a type.
            BindingConflict: a key is bound in this scope already, or twice in the list.
        """
        self._bind(registrations, None)
        return self

    def bind_from(self, home: Container, registrations: Iterable[Registration]) -> Callable[[], None]:
        """Bind all of these or none, for a plugin whose scope is `home`: what they want is looked for there, too.

        Returns:
            Its undo, which also forgets what was kept; called again it does nothing.

        Raises:
            InvalidClassType: a key is neither a non-empty str nor a type.
            BindingConflict: a key is bound in this scope already, or twice in the list.
        """
        bound = self._bind(registrations, home)

        def undo() -> None:
            with self._lock:
                while bound:
                    self._unbind(*bound.popitem())

        return undo

    def _bind(self, registrations: Iterable[Registration], home: Container | None) -> dict[Key, Binding]:
        with self._lock:
            fresh: dict[Key, Binding] = {}
            for wanted in registrations:
                check_key(wanted.key, wanted.origin)
                taken = fresh.get(wanted.key) or self._bindings.get(wanted.key)
                if taken is not None and taken.is_default == wanted.is_default:
                    raise BindingConflict(
                        f"{show_key(wanted.key)} is bound twice: by {taken.origin} and by {wanted.origin}. "
                        "Rename one of them, or bind the one that must win in a child scope"
                    )
                if taken is None or taken.is_default:
                    fresh[wanted.key] = Binding.of(wanted, home, default=taken)
            self._bindings.update(fresh)
            self._count(fresh, 1)
        return fresh

    def _unbind(self, key: Key, binding: Binding) -> None:
        if self._bindings.get(key) is not binding:
            return
        self._count({key: binding}, -1)
        if binding.default is None:
            del self._bindings[key]
        else:
            self._bindings[key] = binding.default
        for scope in (self, binding.home, self._root()):
            if scope is not None:
                scope._kept.pop(binding.identity, None)

    def _count(self, bindings: Mapping[Key, Binding], change: int) -> None:
        self._types += change * sum(isinstance(key, type) for key in bindings)
        self._asyncs += change * sum(binding.is_async for binding in bindings.values())

    # --- scopes ---

    def child(self, /, **instances: Any) -> Container:
        """Make a scope inside this one, in which these names are bound and win over this one's."""
        return self._opened(None, instances)

    def scope(self, kind: Literal["plugin", "execution"], /, **instances: Any) -> Container:
        """Make a child scope that keeps what is bound with `scope=kind`, here or in a scope around it.

        Raises:
            InvalidClassType: there is no such kind of scope.
        """
        if kind not in ("plugin", "execution"):
            raise InvalidClassType(f"Container.scope({kind!r}): open a 'plugin' or an 'execution'")
        return self._opened(kind, instances)

    def _opened(self, kind: str | None, instances: Mapping[str, Any]) -> Container:
        scope = Container.__new__(Container)
        scope._bindings = {name: Binding(value, "child()", is_instance=True) for name, value in instances.items()}
        scope._kept = {}
        scope._building = []
        scope._parent = self
        scope._kind = kind
        # Plugins and the application ask each other for what they keep: two locks could be taken crosswise.
        scope._lock = self._root()._lock if kind == "plugin" else threading.RLock()
        scope._overrides = self._overrides
        scope._types = scope._asyncs = 0
        if kind == "plugin":
            _lasting.add(scope)
        return scope

    def _around(self) -> Iterator[Container]:
        """Give this scope and those around it, from the inside."""
        scope: Container | None = self
        while scope is not None:
            yield scope
            scope = scope._parent

    def _root(self) -> Container:
        *_, root = self._around()
        return root

    @contextmanager
    def override(self, services: Mapping[Key, Any] | None = None, /, **by_name: Any) -> Iterator[Container]:
        """Give other values in the place of what is bound, until the end of the `with` block; for tests.

            with engine.container.override(cache=FakeCache()): ...
            with container.override({Cache: FakeCache()}): ...

        It covers every request, from any thread, to this scope and to the scopes in it, whatever they bind
        themselves, and whether or not they were there before. What such a scope keeps (all but "transient") is built
        anew for the block, and forgotten at its end: nothing that was built with the real service is seen inside,
        nothing that was built with the fake one afterwards. It does not cover what was built before and is held
        elsewhere, the scopes around this one and what those keep, and requests under way when it begins or ends.
        A parameter is still resolved by its annotation first, so a class that is bound needs an override by type.
        Of nested blocks in one scope, the inner one wins; of blocks in several scopes, that of the nearest scope.

        Args:
            services: values by name or type.
            by_name: values by name.

        Raises:
            InvalidClassType: a key is neither a non-empty str nor a type.
        """
        values: dict[Key, Any] = dict(services or {})
        values.update(by_name)
        for key in values:
            check_key(key, "Container.override")
        layer = Layer(self, values)
        self._overrides.begin(layer)
        try:
            yield self
        finally:
            self._overrides.end(layer)

    # --- asking ---

    @property
    def has_async(self) -> bool:
        """Whether an async provider is bound here, or in a scope around this one."""
        return any(scope._asyncs for scope in self._around())

    @property
    def may_replace_classes(self) -> bool:
        """Whether a class, asked for here, could be anything but an instance that is built on the spot."""
        scope: Container | None = self
        while scope is not None:
            if scope._types:
                return True
            scope = scope._parent
        return bool(self._overrides.layers)

    def is_bound(self, key: Key) -> bool:
        """Tell whether the key is bound here, or in a scope around this one, and not only by default."""
        binding = self._found(key)
        return binding is not None and not binding.is_default

    def is_bound_around(self, key: Key) -> bool:
        """Tell whether the key is bound in a scope around this one, and not only by default."""
        return self._parent is not None and self._parent.is_bound(key)

    @overload
    def get(self, key: type[T]) -> T: ...

    @overload
    def get(self, key: str) -> Any: ...

    def get(self, key: Any) -> Any:
        """Give what is bound to a name or type; a concrete class that is not bound is built.

        Raises:
            DependencyBuildingFailure: nothing is bound to the name, the class is abstract, or something that
                its constructor wants, directly or further down, cannot be resolved.
            AsyncServiceWanted: it needs what an async provider gives, which `aget` has not awaited yet; a
                DependencyBuildingFailure.
            InvalidClassType: the key is neither a name nor a type.
        """
        return self._get(key, self._request())

    @overload
    async def aget(self, key: type[T]) -> T: ...

    @overload
    async def aget(self, key: str) -> Any: ...

    async def aget(self, key: Any) -> Any:
        """Do what `get` does, and await the async providers whose results are needed and not there yet.

        Whoever asks meanwhile, in any event loop, waits for the same result. If it fails or is cancelled, they ask
        themselves. What is kept once is given to later requests from any event loop, and to `get`.

        Raises:
            DependencyBuildingFailure, InvalidClassType: as for `get`.
        """
        request = self._request()
        found = self._lookup(_checked(key), request.layers)
        if found is not None:
            await self._prepare(*found, request, _asked(key))
        elif isinstance(key, type) and is_concrete(key) and key is not Container:
            await self._prepare_arguments(key, request, "")
        return self._get(key, request)

    def get_inside(self, cls: type[T], instances: Callable[[], dict[str, Any]]) -> T:
        """Give what `child(**instances()).get(cls)` gives, and make the child scope only if that takes one.

        For what is built very often: a class that wants nothing, or only what is there already, needs no scope.
        """
        plan = plan_of_unbound(cls)  # type: ignore[arg-type]  # classes are hashable
        if plan is None or self._overrides.layers or cls is Container or self._found(cls) is not None:
            return self.child(**instances()).get(cls)
        if not plan:
            return cls()
        own = instances()
        arguments = self._arguments_at_hand(plan, own)
        return self.child(**own).get(cls) if arguments is None else cls(*arguments)

    def _arguments_at_hand(self, plan: tuple[Parameter, ...], own: Mapping[Any, Any]) -> list[Any] | None:
        """Find the values of these parameters, with `own` bound in front; None if one has to be built."""
        arguments: list[Any] = []
        for parameter in plan:
            value = parameter.default
            for key in parameter.keys:
                if key in own:
                    value = own[key]
                    break
                binding = self._found(key)
                if binding is not None:
                    value = binding.value
                    break
            if value is ABSENT or parameter.keyword_only:
                return None
            arguments.append(value)
        return arguments

    def _found(self, key: Key) -> Binding | None:
        scope: Container | None = self
        while scope is not None:
            binding = scope._bindings.get(key)
            if binding is not None:
                return binding
            scope = scope._parent
        return None

    def arguments_for(self, function: Callable[..., Any], skip: int = 1) -> dict[str, Any]:
        """Resolve the parameters of a function after the first `skip`, by the same rule as a constructor's.

        Args:
            function: any callable; a bound method's own object does not count as a parameter.
            skip: how many leading parameters the caller fills in itself.

        Returns:
            A value by parameter name. A parameter with nothing bound to it and a default is left out.

        Raises:
            DependencyBuildingFailure: a parameter without a default cannot be resolved.
        """
        plan = plan_of_callable(function, skip)
        request = self._entered(function, self._request(), "")
        values = {parameter.name: self._argument(parameter, request, ABSENT) for parameter in plan}
        return {name: value for name, value in values.items() if value is not ABSENT}

    async def aarguments_for(self, function: Callable[..., Any], skip: int = 1) -> dict[str, Any]:
        """Do what `arguments_for` does, and await the async providers whose results are needed; see `aget`."""
        request = self._entered(function, self._request(), "")
        for parameter in plan_of_callable(function, skip):
            await self._prepare_argument(parameter, request)
        return self.arguments_for(function, skip)

    # --- resolving ---

    def _request(self) -> _Request:
        layers = self._overrides.layers
        return _Request(layers) if layers else _PLAIN_REQUEST

    def _get(self, key: Any, request: _Request) -> Any:
        found = self._lookup(_checked(key), request.layers)
        if found is not None:
            return self._value(*found, request, _asked(key))
        if isinstance(key, str):
            raise DependencyBuildingFailure(f"nothing is bound to {key!r}. {_how_to_bind(key, None)}")
        if not is_concrete(key):
            raise DependencyBuildingFailure(
                f"{key.__name__} is abstract and nothing is bound to it. Bind its implementation: "
                f"container.bind_class({key.__name__}, ...) or container.bind_instance({key.__name__}, ...)"
            )
        return self._make(key, request, "")

    def _lookup(self, key: Key, layers: tuple[Layer, ...]) -> tuple[Container, Binding] | None:
        """Find what a key means in this scope: the nearest override, else the nearest binding; and whose it is."""
        for scope in self._around() if layers else ():
            for layer in reversed(layers):
                if layer.scope is scope and key in layer.values:
                    return scope, layer.values[key]
        nearest: Container | None = self
        while nearest is not None:
            binding = nearest._bindings.get(key)
            if binding is not None:
                return nearest, binding
            nearest = nearest._parent
        return None

    def _value(self, owner: Container, binding: Binding, request: _Request, asked: str) -> Any:
        """Give the value of a binding of this scope, or of a scope around it."""
        if binding.value is not ABSENT and (binding.is_instance or not request.layers):
            return binding.value
        if binding.scope == "transient":
            return self._make(binding.target, request, asked, binding.home)
        return self._keeper(owner, binding, request, asked)._keep(binding, request, asked)

    def _keeper(self, owner: Container, binding: Binding, request: _Request, asked: str) -> Container:
        """Find the scope that keeps what a binding of `owner` gives to this scope."""
        home: Container | None = binding.home
        if binding.scope == "singleton" and home is None:
            return owner
        if binding.scope == "application":
            return home or self._root()
        kind = "execution" if binding.scope == "singleton" else binding.scope
        for scope in self._around():
            if scope._kind == kind:
                return scope
        if home is not None and binding.scope != "execution":
            return home
        end = f"{asked}: {name_of(binding.target)}, one for each {binding.scope}"
        raise DependencyBuildingFailure(
            f"{name_of(binding.target)} is asked for outside of any {binding.scope}, and {binding.origin} binds it "
            f"with scope={binding.scope!r}. What lives longer cannot want it: give that the same scope"
            f"{drawing_of(request.links, end)}"
        )

    def _keep(self, binding: Binding, request: _Request, asked: str) -> Any:
        """Give what this scope keeps for a binding; build it the first time."""
        with self._lock:
            shelf = self._shelf(request.layers)
            value = shelf.get(binding.identity, ABSENT)
            if isinstance(value, _Making) or (value is ABSENT and binding.is_async):
                raise _unawaited(binding, request, asked)
            if value is ABSENT:
                is_above = any(link.target == binding.target for link in request.links)  # then `_make` tells the cycle
                if binding.identity in self._building and not is_above:
                    raise _cycle(binding, request, asked)
                self._building.append(binding.identity)
                try:
                    value = shelf[binding.identity] = self._make(binding.target, request, asked, binding.home)
                finally:
                    self._building.pop()
                self._note_kept(binding, shelf, value)
            return value

    def _note_kept(self, binding: Binding, shelf: Mapping[Any, Any], value: Any) -> None:
        """Shorten the way to a value that is the same for every request."""
        is_one = binding.scope == "application" or (binding.scope == "singleton" and binding.home is None)
        if is_one and shelf is self._kept:
            binding.value = value

    def _shelf(self, layers: tuple[Layer, ...]) -> dict[Any, Any]:
        """Give where this scope keeps what it builds: for the innermost override that covers it, or for good."""
        if layers:
            around = list(self._around())
            for layer in reversed(layers):
                if layer.scope in around:
                    return layer.kept.setdefault(self, {})
        return self._kept

    def _make(self, target: Callable[..., Any], request: _Request, asked: str, home: Container | None = None) -> Any:
        """Call a class or function with all of its parameters resolved."""
        if target is Container:
            return self
        positional, keywords = self._arguments(target, self._entered(target, request, asked, home))
        return target(*positional, **keywords)

    def _entered(
        self, target: Callable[..., Any], request: _Request, asked: str, home: Container | None = None
    ) -> _Request:
        """Add a link to the chain of requests.

        Raises:
            DependencyBuildingFailure: it is there already.
        """
        link = Link(self, target, asked)
        if any(before.scope is self and before.target == target for before in request.links):
            path = " -> ".join(name_of(each.target) for each in (*request.links, link))
            raise DependencyBuildingFailure(
                f"a cycle of requests: {path}. Break it: let one of them take the Container and ask for the other "
                f"when it is needed{drawing_of(request.links, f'{asked}: {name_of(target)}, which is above')}"
            )
        return _Request(request.layers, (*request.links, link), home)

    def _arguments(self, target: Callable[..., Any], request: _Request) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for parameter in plan_of_callable(target, 0):
            value = self._argument(parameter, request, parameter.default)
            if parameter.keyword_only:
                keywords[parameter.name] = value
            else:
                positional.append(value)
        return positional, keywords

    def _argument(self, parameter: Parameter, request: _Request, instead: Any) -> Any:
        """Resolve one parameter; `instead` is the answer if nothing is bound and it has a default."""
        for key in parameter.keys:
            for scope in self._looked_in(request):
                found = scope._lookup(key, request.layers)
                if found is not None:
                    return scope._value(*found, request, parameter.name)
        if parameter.default is not ABSENT:
            return instead
        if parameter.builds is not None:
            return self._make(parameter.builds, request, parameter.name, request.home)
        raise _unresolved(parameter, request.links)

    def _looked_in(self, request: _Request) -> tuple[Container, ...]:
        return (self,) if request.home is None else (self, request.home)

    # --- awaiting ---

    def adopt_awaited(self, other: Container) -> None:
        """Take over what async providers gave another scope in which the same is bound."""
        for key, binding in self._bindings.items():
            before = other._bindings.get(key)
            if binding.is_async and before is not None and before.is_async:
                value = other._kept.get(before.identity, ABSENT)
                if value is not ABSENT:
                    self._kept[binding.identity] = value
        for identity, value in other._kept.items():
            if isinstance(identity, Binding) and identity.is_async:
                self._kept.setdefault(identity, value)

    async def _prepare(self, owner: Container, binding: Binding, request: _Request, asked: str) -> None:
        """Await what a binding needs of async providers, so that its value can be had without waiting."""
        if binding.value is not ABSENT and (binding.is_instance or not request.layers):
            return
        if binding.scope == "transient":
            await self._prepare_arguments(binding.target, request, asked, binding.home)
            return
        keeper = self._keeper(owner, binding, request, asked)
        found = keeper._shelf(request.layers).get(binding.identity, ABSENT)
        if found is ABSENT or isinstance(found, _Making):
            await keeper._prepare_arguments(binding.target, request, asked, binding.home)
            if binding.is_async:
                await keeper._await_kept(binding, request, asked)

    async def _prepare_arguments(
        self, target: Callable[..., Any], request: _Request, asked: str, home: Container | None = None
    ) -> None:
        if target is Container:
            return
        inner = self._entered(target, request, asked, home)
        for parameter in plan_of_callable(target, 0):
            await self._prepare_argument(parameter, inner)

    async def _prepare_argument(self, parameter: Parameter, request: _Request) -> None:
        for key in parameter.keys:
            for scope in self._looked_in(request):
                found = scope._lookup(key, request.layers)
                if found is not None:
                    await scope._prepare(*found, request, parameter.name)
                    return
        if parameter.default is ABSENT and parameter.builds is not None:
            await self._prepare_arguments(parameter.builds, request, parameter.name, request.home)

    async def _await_kept(self, binding: Binding, request: _Request, asked: str) -> None:
        """Await an async provider for this scope, or whoever does that already."""
        task_id = anyio.get_current_task().id
        while True:
            with self._lock:
                shelf = self._shelf(request.layers)
                found = shelf.get(binding.identity, ABSENT)
                if found is ABSENT:
                    shelf[binding.identity] = _Making(task_id)
            if found is ABSENT:
                await self._await_provider(binding, shelf, request, asked)
                return
            if not isinstance(found, _Making):
                return
            with _waiting_lock:
                if _waits_for(found, task_id):
                    raise _cycle(binding, request, asked)
                _waited_for[task_id] = found
            try:
                await found.is_over.wait()
            finally:
                with _waiting_lock:
                    del _waited_for[task_id]

    async def _await_provider(self, binding: Binding, shelf: dict[Any, Any], request: _Request, asked: str) -> None:
        """Put what the provider gives where a `_Making` holds its place; whatever comes of it, wake who waits."""
        making = shelf[binding.identity]
        try:
            entered = self._entered(binding.target, request, asked, binding.home)
            positional, keywords = self._arguments(binding.target, entered)
            value = await binding.target(*positional, **keywords)
        except BaseException:
            with self._lock:
                del shelf[binding.identity]
            raise
        else:
            with self._lock:
                shelf[binding.identity] = value
                self._note_kept(binding, shelf, value)
        finally:
            making.is_over.ring()


#: Where services are kept for longer than an execution: the outermost containers, and the scopes of plugins.
_lasting: WeakSet[Container] = WeakSet()


def _after_fork_in_child() -> None:
    """Forget what other threads were building at the fork: nobody here goes on with it, or gives its lock back."""
    _waited_for.clear()
    _waiting_lock.release()
    locks = {container._lock: threading.RLock() for container in _lasting}
    for container in _lasting:
        container._lock = locks[container._lock]
        container._overrides.after_fork_in_child()
        container._building.clear()
        for shelf in (container._kept, *(layer.kept.get(container, {}) for layer in container._overrides.layers)):
            for key in [key for key, value in shelf.items() if isinstance(value, _Making)]:
                del shelf[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_waiting_lock.acquire, after_in_parent=_waiting_lock.release, after_in_child=_after_fork_in_child
    )


def _waits_for(making: _Making | None, task_id: int) -> bool:
    """Tell whether the task that makes something waits for what another task makes, and so on, back to this one."""
    while making is not None:
        if making.task_id == task_id:
            return True
        making = _waited_for.get(making.task_id)
    return False


def wants_nothing(cls: type) -> bool:
    """Tell whether a container to which this class is not bound builds it by calling it without arguments."""
    return plan_of_unbound(cls) == () and cls is not Container


def registrations_of(provider: Any) -> list[Registration]:
    """List what a service provider, or a class of such, asks to bind.

    Raises:
        InvalidClassType: this is no service provider.
    """
    instance: Any = provider() if isinstance(provider, type) else provider
    registrations = getattr(instance, "registrations", None)
    if not callable(registrations):
        raise InvalidClassType(f"{provider!r} is no service provider: derive its class from ServiceProvider")
    listed: list[Registration] = list(registrations())
    if not isinstance(provider, type):
        return listed
    return [_identified(each, provider) for each in listed]


def _identified(registration: Registration, provider: type) -> Registration:
    """Let each instance of a provider's class stand for the same thing where one is kept for an application."""
    if registration.scope != "application":
        return registration
    return replace(registration, identity=(provider, registration.key))


def _asked(key: Key) -> str:
    return key if isinstance(key, str) else key.__name__


def _checked(key: Any) -> Any:
    if not isinstance(key, (str, type)):
        raise InvalidClassType(f"Container.get wants a name or a class, not {key!r}")
    return key


def _caller(what: str) -> str:
    """Name a call on the container together with the line of the code that makes it."""
    frame = sys._getframe(2)
    return f"{what} at {frame.f_code.co_filename}:{frame.f_lineno}"


def _cycle(binding: Binding, request: _Request, asked: str) -> DependencyBuildingFailure:
    name = name_of(binding.target)
    return DependencyBuildingFailure(
        f"a cycle of requests through a Container: {name} is asked for while it is being built. Break it: let one of "
        f"them ask for the other when it is needed, and not before it is built"
        f"{drawing_of(request.links, f'{asked}: {name}, which is being built')}"
    )


def _unawaited(binding: Binding, request: _Request, asked: str) -> AsyncServiceWanted:
    provider = name_of(binding.target)
    return AsyncServiceWanted(
        f"{asked} comes from the async provider {provider}, whose result is not there yet: ask for it, or for what "
        f"wants it, with `await container.aget(...)`{drawing_of(request.links, f'{asked}: async {provider}')}"
    )


def _unresolved(parameter: Parameter, links: tuple[Link, ...]) -> DependencyBuildingFailure:
    wanted = next((key for key in parameter.keys if isinstance(key, type)), None)
    argument = f"{parameter.name}: {wanted.__name__}" if wanted else parameter.name
    first, last = links[0], links[-1]
    message = (
        f"{name_of(first.target)} cannot be built: {name_of(last.target)} wants the argument '{argument}' and nothing "
        f"is bound to it. {_how_to_bind(parameter.name, wanted)}"
    )
    if last.scope is not first.scope:
        message += f". What is bound in a child scope only is not seen: {name_of(last.target)} is built for its parent"
    return DependencyBuildingFailure(f"{message}{drawing_of(links, f'{argument}, to which nothing is bound')}")


def _how_to_bind(name: str, wanted: type | None) -> str:
    ways = [f"container.bind_instance({name!r}, ...)"]
    if wanted is not None and not is_pythons_own(wanted):
        ways.append(f"container.bind_class({wanted.__name__}, ...)")
    if name not in CORE_SERVICE_NAMES:
        ways.append(f"a configuration variable {name.upper()}")
    return f"Bind it with {', '.join(ways)} or a provider's provide_{name} method; an argument may also have a default"

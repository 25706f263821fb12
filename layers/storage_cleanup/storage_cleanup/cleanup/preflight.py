"""What must hold before anything is deleted: key, project, plan, and a set of saved assets that can be trusted."""

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from storage_cleanup.cleanup.circuit_breaker import CircuitBreaker, judge_first_run, judge_reference_set
from storage_cleanup.cleanup.options import RunOptions
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ObjectStoreError, RequestError, StorageCleanupError, UnsafeError
from storage_cleanup.limits import REFERENCE_SECONDS
from storage_cleanup.model.vocabulary import Trigger
from storage_cleanup.postgres.adapter import Bucket
from storage_cleanup.postgres.ledger import Database, Plan
from storage_cleanup.storage.object_store import ObjectStore
from storage_cleanup.storage.paths import GRAMMAR, OWN_BUCKET

_log = logging.getLogger(__name__)
_CLOCKS_DIFFER = timedelta(seconds=1)
_CANARY = b"Storage Cleanup proves with this that Storage and database are one project."
_UPLOAD_REFUSED = (
    "Storage refuses the upload that shows whether supabase/url and database/url are one project ({error}): raise the "
    "project's quota, permit the service role to upload to bucket storage-cleanup, or make it by database/install.sql; "
    "a dry run and its override go on without"
)


def scope_of(settings: Settings) -> dict[str, Any]:
    """Return where a run may delete: a plan is carried out where it was made, and what isn't there is set aside."""
    return {"origin": settings.supabase_url, "buckets": sorted(settings.buckets), "grammar": GRAMMAR}


class Preflight:
    """The checks of one run. Each is made as late as it can be: an idle run has nothing to prove.

    Parameters
    ----------
    run
        The run that the reference set is counted for.
    breaker
        Opened when the set of saved assets can't be trusted.

    Raises
    ------
    UnsafeError
        From every method: what doesn't hold, and what to do about it.
    """

    def __init__(
        self,
        run: UUID,
        settings: Settings,
        options: RunOptions,
        *,
        database: Database,
        store: ObjectStore,
        breaker: CircuitBreaker,
    ) -> None:
        self._run = run
        self._settings = settings
        self._options = options
        self._database = database
        self._store = store
        self._breaker = breaker
        self._is_proved = False
        self._counted_at: float | None = None
        self._is_canary_done = False
        self._doubt: StorageCleanupError | None = None

    @property
    def found_good(self) -> bool:
        """Whether the reference set was counted and accepted, so that the next runs may be judged by it."""
        is_counted = self._counted_at is not None or self._options.plan is not None  # an override is, when it begins
        return is_counted and self._breaker.reason is None

    def assert_may_begin(self) -> None:
        """Make sure that the database can be trusted, and that an override names a plan that may be carried out.

        Who asks by hand learns at once whether the key is right. A scheduled run proves it before its first claim: when
        it finds nothing to do, it needs no client for Storage, which would double its time.

        Raises
        ------
        RequestError
            The override doesn't name such a plan.
        """
        self._database.assert_trust()
        self._assert_references_are_guarded()
        if self._options.trigger is not Trigger.SCHEDULE:
            self._assert_same_project()
        if self._options.plan:
            assert_plan(self._database.plan(self._options.plan), self._options.as_dict(), scope_of(self._settings))

    def assert_may_delete(self) -> None:
        """Make sure of key and project, and judge the set of saved assets; called before each claim.

        Before anything is deleted, and in a dry run made by hand, a canary has to show that it is the same project.
        """
        self._assert_same_project()
        self._breaker.assert_closed()
        self._count_if_stale()
        if not self._options.dry_run or self._options.trigger is not Trigger.SCHEDULE:
            self._assert_canary_is_seen()
            self._count_if_stale()

    def _assert_references_are_guarded(self) -> None:
        wanted = self._settings.references
        if wanted and (missing := self._database.unprotected_among(wanted)):
            names = ",".join(missing)
            raise UnsafeError(
                f"references names {names}, which isn't guarded yet: run `make install-database REFERENCES={names}`",
                code="references",
            )

    def _assert_same_project(self) -> None:
        if not self._is_proved:
            assert_same_project(self._store.buckets(), self._database.buckets(), self._settings.buckets)
            self._is_proved = True

    def _assert_canary_is_seen(self) -> None:
        """Send one canary a run: what it has failed to show stays in doubt."""
        if self._doubt:
            raise self._doubt
        if not self._is_canary_done:
            try:
                self._send_canary(f"canary/{self._run}")
            except StorageCleanupError as error:
                self._doubt = error
                raise
            self._is_canary_done = True

    def _send_canary(self, name: str) -> None:
        """Upload an object that only the database of the same project can know, look for it there, and remove it.

        A restored clone agrees with its origin in everything old, buckets included. If the look fails, the canary stays
        for the next run to remove.
        """
        try:
            self._store.upload(OWN_BUCKET, name, _CANARY)
        except ObjectStoreError as error:
            if error.is_passing:
                raise
            refusal = _UPLOAD_REFUSED.format(error=error)
            if not (self._options.dry_run or self._options.plan):
                raise UnsafeError(refusal, code="canary") from error
            _log.warning("Nothing proves that Storage and database are one project: %s", refusal)
            return
        seen = self._database.canaries(self._run)
        is_seen = name in seen
        removal = self._store.remove(OWN_BUCKET, sorted(seen) if is_seen else [name])
        if not is_seen:
            raise UnsafeError(
                "supabase/url and database/url belong to different projects, one of them probably a clone: "
                "an object uploaded just now isn't in the database",
                code="project",
            )
        for left, failure in removal.failed.items():
            _log.warning("%s could not be removed; the next run removes it", left, extra={"error": str(failure)})

    def _count_if_stale(self) -> None:
        if self._counted_at is None or time.monotonic() - self._counted_at > REFERENCE_SECONDS:
            self._judge_reference_set()

    def _judge_reference_set(self) -> None:
        """Count, and open the breaker when too much is gone; a dry run only says that a real one would stop."""
        self._counted_at, now = None, time.monotonic()
        counted = self._database.judge_saved(self._run)
        fallen = judge_reference_set(counted.saved, counted.before, self._settings.max_saved_drop_percent)
        is_first = counted.before is None and not counted.saved
        blind = judge_first_run(**asdict(self._database.first_run_facts())) if is_first else None
        if self._options.dry_run:
            if reason := fallen or blind:
                _log.warning("Only an override could delete anything: %s", reason)
        elif blind:
            raise UnsafeError(blind, code="first_run")
        else:
            self._breaker.reference_reason = fallen
            self._breaker.assert_closed()
        self._counted_at = now


def assert_same_project(
    in_storage: Mapping[str, datetime], in_database: Collection[Bucket], listed: Collection[str]
) -> None:
    """Prove, before the first claim, that key, Storage and database belong together.

    Only the database of the same project has the buckets that Storage answers, made at the same moment.

    Raises
    ------
    UnsafeError
        With the parameter that is probably wrong.
    """
    assert_key_sees(in_storage, listed)
    made = {bucket.id: bucket.created_at for bucket in in_database}
    if any(bucket not in made or abs(made[bucket] - in_storage[bucket]) > _CLOCKS_DIFFER for bucket in listed):
        raise UnsafeError(
            "supabase/url and database/url belong to different projects: their buckets are not the same", code="project"
        )


def assert_key_sees(in_storage: Mapping[str, datetime], listed: Collection[str]) -> None:
    """Make sure that the key is the service role's, which sees the buckets, while any other key sees none.

    Raises
    ------
    UnsafeError
        With the parameter that is probably wrong.
    """
    if not in_storage:
        raise UnsafeError(
            "supabase/service-role-key sees no buckets at supabase/url: it isn't the service-role key of that project",
            code="key",
        )
    if missing := [bucket for bucket in listed if bucket not in in_storage]:
        others = ", ".join(sorted(in_storage.keys() - {OWN_BUCKET}))
        raise UnsafeError(
            f"buckets names {', '.join(missing)}, which Storage doesn't have; it has {others}", code="bucket"
        )


def assert_plan(plan: Plan | None, options: Mapping[str, Any], scope: Mapping[str, Any]) -> None:
    """Make sure that an override carries out what a dry run has shown, and nothing else.

    Raises
    ------
    RequestError
        There is no such plan, or it is stale, used, or about something else.
    """
    if plan is None:
        raise RequestError(["override names no dry run; it accepts the plan_id of one"])
    faults = []
    if not plan.fresh:
        faults.append("override names a dry run of more than 24 hours ago; make a new one")
    if plan.used:
        faults.append("override names a plan that has been carried out already; make a new dry run")
    if not plan.finished:
        faults.append("override names a dry run that didn't go well; make a new one")
    for name, value in options.items():
        if plan.options.get(name) != value:
            faults.append(f"{name} is {value}, but the plan was made with {plan.options.get(name)}")
    if plan.scope != scope:
        faults.append("supabase/url or buckets have changed since the plan was made; make a new dry run")
    if faults:
        raise RequestError(faults)

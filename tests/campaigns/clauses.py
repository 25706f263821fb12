"""Takes away what ``docs/safety.md`` says protects a saved file, one clause at a time: a test must then lose one.

The repository is copied to ``build/clauses``, a clause is changed there, and the tests that the clause names are run.
"""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass

from local.postgres import ROOT
from tests.campaigns.report import Figures, missed

PLACE = ROOT / "build" / "clauses"
COPIED = ("database", "events", "functions", "layers", "local", "tests", "pyproject.toml", "template.yaml")

_FUNCTIONS = "database/functions/"
_PACKAGE = "layers/storage_cleanup/storage_cleanup/"
_PROTECTION = "tests/integration/test_protection.py::test_"
_GUARD = "tests/integration/test_guard.py::test_"


@dataclass(frozen=True)
class Clause:
    """What protects a file, how to take it away, and the test that then fails.

    Attributes
    ----------
    file, text, instead
        Where it stands, once, and what stands there without it.
    test
        The test, as pytest names it.
    """

    name: str
    file: str
    text: str
    instead: str
    test: str

    def is_missed(self) -> bool:
        """Take it away in the copy of the repository, and return whether its test fails there."""
        path = PLACE / self.file
        original = path.read_text()
        assert original.count(self.text) == 1, f"{self.name}: its text stands {original.count(self.text)} times"
        path.write_text(original.replace(self.text, self.instead))
        try:
            _run("-m", "database.bundle")
            tried = _run("-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", self.test)
        finally:
            path.write_text(original)
        assert tried in (0, 1), f"{self.name}: pytest ended with {tried}"
        return tried == 1


CLAUSES = (
    Clause(
        "the locks that a save takes",
        _FUNCTIONS + "locks.sql",
        "    perform from storage_cleanup.lock where slot = any (storage_cleanup.slots(jobs, objects))",
        "    perform from storage_cleanup.lock where false and slot = any (storage_cleanup.slots(jobs, objects))",
        _GUARD + "a_claim_passes_over_a_job_whose_save_is_under_way",
    ),
    Clause(
        "the update of the locks that a claim takes",
        _FUNCTIONS + "locks.sql",
        "    update storage_cleanup.lock set n = n + 1 where slot = any (taken);\n",
        "",
        _GUARD + "a_saver_with_an_old_snapshot_is_refused_as_well",
    ),
    Clause(
        "the look for a claim",
        _FUNCTIONS + "references.sql",
        "perform storage_cleanup.refuse_if_claimed(named, needed || through, through);",
        "null;",
        _GUARD + "a_save_of_a_claimed_job_is_refused_with_words_for_the_user",
    ),
    Clause(
        "the mentions, under any key",
        _FUNCTIONS + "references.sql",
        "where exists (select from storage_cleanup.mention where mention.id = asked.id)",
        "where false",
        _PROTECTION + "a_job_that_is_named_under_any_key_is_saved",
    ),
    Clause(
        "the look into the assets themselves",
        _FUNCTIONS + "references.sql",
        "or exists (select from public.user_assets as asset where asset.metadata ->> 'render_job_id' = asked.id::text)",
        "or false",
        _PROTECTION + "what_is_noted_is_not_all_that_is_looked_at",
    ),
    Clause(
        "the references",
        _FUNCTIONS + "claim.sql",
        "when object.key = any (needed) then 'asset_points_at_file'",
        "when false then 'asset_points_at_file'",
        _PROTECTION + "a_saved_file_outlives_its_job",
    ),
    Clause(
        "what the table says now",
        _FUNCTIONS + "guard.sql",
        "array_agg(coalesce(stored.fields, changed.fields))",
        "array_agg(changed.fields)",
        "tests/integration/test_application_schema.py::test_an_asset_that_a_trigger_rewrites_keeps_what_it_says_in_the_end",
    ),
    Clause(
        "the owner",
        _FUNCTIONS + "claim.sql",
        "when owners_only and present and job.user_id is distinct from object.owner then 'not_the_owners'",
        "when false then 'not_the_owners'",
        _PROTECTION + "a_job_cannot_take_the_file_of_another_user",
    ),
    Clause(
        "other readings of a URL",
        _FUNCTIONS + "claim.sql",
        "where other <> object.key) then 'ambiguous_url'",
        "where false) then 'ambiguous_url'",
        _PROTECTION + "a_query_that_is_a_name_as_well_deletes_neither_object",
    ),
    Clause(
        "the dependents",
        _FUNCTIONS + "claim.sql",
        "when job.id = any (dependent) then 'has_dependents'",
        "when false then 'has_dependents'",
        _PROTECTION + "a_job_that_other_rows_refer_to_stays_with_its_file",
    ),
    Clause(
        "columns of other tables",
        _FUNCTIONS + "places.sql",
        "    if source is not null then\n",
        "    if false then\n",
        "tests/integration/test_places.py::test_a_file_that_a_listed_column_names_stays",
    ),
    Clause(
        "the notes that a comparison locks before it forgets them",
        _FUNCTIONS + "references.sql",
        "        perform from storage_cleanup.reference where source = any (sources) for key share;\n",
        "",
        "tests/integration/test_places.py::test_an_asset_that_is_put_back_while_a_comparison_forgets_it_keeps_its_file",
    ),
    Clause(
        "the comparison when triggers have changed",
        _FUNCTIONS + "comparison.sql",
        "           or fingerprint is distinct from storage_cleanup.fingerprint()\n",
        "           or false\n",
        _PROTECTION + "what_was_written_while_a_trigger_was_off_is_found_before_anything_is_claimed",
    ),
    Clause(
        "the version of an upload",
        _FUNCTIONS + "confirm.sql",
        "where storage_cleanup.version(stored.id, stored.version) <> claim.version or job.status",
        "where job.status",
        _PROTECTION + "what_is_rendered_again_after_a_crash_stays[its file]",
    ),
    Clause(
        "the lease",
        _PACKAGE + "storage/object_store.py",
        "    if is_over():\n",
        "    if False:\n",
        _PROTECTION + "a_request_is_not_sent_again_once_the_lease_is_over",
    ),
    Clause(
        "the time until no request can be at work",
        _FUNCTIONS + "confirm.sql",
        "return since + interval '150 seconds';",
        "return since - interval '1 second';",
        _PROTECTION + "what_a_run_has_claimed_that_died_a_moment_ago_is_left_alone",
    ),
    Clause(
        "a request that is open",
        _FUNCTIONS + "confirm.sql",
        "    if not is_open then\n",
        "    if true then\n",
        _PROTECTION + "what_was_rendered_again_before_the_request_has_ended_cannot_be_saved",
    ),
    Clause(
        "the canary",
        _PACKAGE + "cleanup/preflight.py",
        "        if not is_seen:\n",
        "        if False:\n",
        "tests/integration/test_canary.py::test_a_clone_that_agrees_in_everything_old_deletes_nothing",
    ),
    Clause(
        "the first run that sees no save",
        _PACKAGE + "cleanup/preflight.py",
        "is_first = counted.before is None and not counted.saved",
        "is_first = False",
        "tests/integration/test_first_run.py::test_a_first_run_that_sees_many_jobs_and_no_asset_refuses",
    ),
)


def _run(*arguments: str) -> int:
    """Run Python in the copy, and return how it ended."""
    environment = {**os.environ, "PYTHONPATH": "layers/storage_cleanup:.", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=PLACE, env=environment, check=False, stdout=subprocess.DEVNULL
    ).returncode


@dataclass(frozen=True)
class Clauses:
    """The campaign."""

    name: str = "clauses"

    def run(self, seed: int, short: bool) -> Figures:
        """Take away each; in the short form one."""
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir(parents=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, PLACE / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, PLACE / name)
        tried = random.Random(seed).sample(CLAUSES, 1) if short else CLAUSES
        unmissed = [clause.name for clause in tried if not clause.is_missed()]
        return {
            "clauses": len(tried),
            "unmissed": len(unmissed),
            "found": dict.fromkeys(unmissed, "its test passes"),
        }

    def goals(self, figures: Figures) -> list[str]:
        """No clause can be taken away unnoticed."""
        return missed(figures, {"unmissed": "== 0", "clauses": "> 0"})


CAMPAIGN = Clauses()

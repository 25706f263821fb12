"""`make secrets` puts what CloudFormation can't."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from operations.put_secrets import put_secrets
from tests.infrastructure.conftest import PATH, STAGE, Stack

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "There is no AWS region: set AWS_REGION to the region of the Supabase project"
ANSWERS = {
    "supabase/url": "https://abc.supabase.co",
    "supabase/service-role-key": "sb_secret_x",
    "database/url": "postgresql://u:p@h:6543/postgres",
}


def test_values_are_put_encrypted_and_an_empty_answer_keeps_them(stack: Stack) -> None:
    ssm = boto3.client("ssm")
    put = put_secrets(ssm, STAGE, None, lambda question: ANSWERS[question.split()[0]])
    kept = put_secrets(ssm, STAGE, None, lambda question: "")
    names = [f"{PATH}/{name}" for name in ("supabase/url", "supabase/service-role-key", "database/url")]
    found = {each["Name"]: each["Type"] for each in ssm.get_parameters(Names=names)["Parameters"]}
    assert put == names
    assert kept == []
    assert found == dict(zip(names, ["String", "SecureString", "SecureString"], strict=True))


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has told no program of AWS where."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE"))}
    return {**mine, "AWS_CONFIG_FILE": str(tmp_path / "none"), "PYTHONPATH": f"{ROOT}/layers/storage_cleanup:{ROOT}"}


@pytest.mark.parametrize("target", ["deploy", "secrets", "delete"])
def test_a_missing_region_is_said_in_one_sentence_before_anything_starts(
    nowhere: dict[str, str], tmp_path: Path, target: str
) -> None:
    # Were the check not there, make would go on to what follows it: it gets nothing to install, clear or deploy with.
    harmless = ["make", target, f"VENV={tmp_path / 'venv'}", "PYTHON=false", "SAM=false", "PYTHON_313="]
    done = subprocess.run(harmless, cwd=ROOT, env=nowhere, check=False, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert (done.stdout, said) == ("", [SENTENCE])


def test_the_module_says_it_as_well(nowhere: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "operations.put_secrets", "testing"],
        cwd=ROOT,
        env=nowhere,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{SENTENCE}\n")


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_either_variable_reaches_every_program(nowhere: dict[str, str], tmp_path: Path, name: str) -> None:
    """SAM and boto3 read ``AWS_DEFAULT_REGION`` alone."""
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"include {ROOT / 'Makefile'}\nshow: region\n\t@echo $$AWS_DEFAULT_REGION\n")
    done = subprocess.run(
        ["make", "-f", makefile, "show"], cwd=ROOT, env={**nowhere, name: "eu-west-1"}, check=True, capture_output=True
    )
    assert done.stdout == b"eu-west-1\n"

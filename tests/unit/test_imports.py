"""What a new execution environment loads: import time is paid for at every cold start."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"aws_xray_sdk", "boto3", "httpx", "jinja2", "pydantic", "pygal", "storage3", "supabase"}


@pytest.mark.parametrize("function", ["cleanup", "health", "restore", "schedule_sync"])
def test_a_function_loads_nothing_that_it_does_not_need(function: str) -> None:
    program = f"import sys, app; print(*sorted({HEAVY} & sys.modules.keys()))"
    path = f"{ROOT / 'functions' / function}:{ROOT / 'layers/storage_cleanup'}"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []

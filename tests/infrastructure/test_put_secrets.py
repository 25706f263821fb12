"""`make secrets` puts what CloudFormation can't."""

import boto3

from local.put_secrets import put_secrets
from tests.infrastructure.conftest import PATH, STAGE, Stack

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

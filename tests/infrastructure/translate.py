"""Translate template.yaml as CloudFormation's SAM transform does; run by .venv-sam's Python, prints JSON."""

import json
import os
import sys
from pathlib import Path

from samtranslator.public.translator import ManagedPolicyLoader  # type: ignore[import-not-found]
from samtranslator.translator.transform import transform  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]


class _NoPolicies(ManagedPolicyLoader):  # type: ignore[misc]
    """The template names no managed policy; asking AWS for their list would need an account."""

    def load(self) -> dict[str, str]:
        return {}


def main() -> None:
    """Print the translated template; with local code replaced by an S3 address, as `sam package` would."""
    template = yaml_parse(Path(sys.argv[1]).read_text())
    for resource in template["Resources"].values():
        key = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
        if name := key.get(resource["Type"]):
            resource["Properties"][name] = "s3://code/placeholder.zip"
    os.environ["AWS_DEFAULT_REGION"] = sys.argv[2]
    print(json.dumps(transform(template, {}, _NoPolicies(None)), default=str))


if __name__ == "__main__":
    main()

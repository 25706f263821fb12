"""Translate template.yaml as CloudFormation's SAM transform does; run by .venv-sam's Python, prints JSON."""

import json
import os
import sys
from pathlib import Path

from samtranslator.public.translator import ManagedPolicyLoader  # type: ignore[import-not-found]
from samtranslator.translator.transform import transform  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]

# Local files, which `sam package` replaces by S3 addresses.
_LOCAL = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
}


class _NoPolicies(ManagedPolicyLoader):  # type: ignore[misc]
    """The template names no managed policy; asking AWS for their list would need an account."""

    def load(self) -> dict[str, str]:
        return {}


def main() -> None:
    """Print the translated template; state machines have their definitions in it, for moto can't substitute in S3."""
    path = Path(sys.argv[1])
    template = yaml_parse(path.read_text())
    definitions: dict[str, str] = {}
    for name, resource in template["Resources"].items():
        if key := _LOCAL.get(resource["Type"]):
            local, resource["Properties"][key] = resource["Properties"][key], "s3://code/placeholder.zip"
            if key == "DefinitionUri":
                definitions[name] = (path.parent / local).read_text()
    os.environ["AWS_DEFAULT_REGION"] = sys.argv[2]
    translated = transform(template, {}, _NoPolicies(None))
    for name, definition in definitions.items():
        properties = translated["Resources"][name]["Properties"]
        del properties["DefinitionS3Location"]
        properties["DefinitionString"] = {"Fn::Sub": [definition, properties.pop("DefinitionSubstitutions")]}
    print(json.dumps(translated, default=str))


if __name__ == "__main__":
    main()

"""The AWS region: the one thing that every command here needs first."""

import os
import sys

import boto3


def region() -> str:
    """Return the region that AWS's own programs would use; end the program with a sentence when there is none."""
    found = os.environ.get("AWS_REGION") or boto3.session.Session().region_name  # boto3 reads the other variable
    if not found:
        sys.exit("There is no AWS region: set AWS_REGION to the region of the Supabase project")
    return found

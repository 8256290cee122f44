"""Settings of files, where they are kept, and of batches."""

from datetime import timedelta

from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr

from core.setting_types import Duration, Group


class StorageSettings(Group):
    url: str = Field(
        default="var/files",
        description="Where files are kept: a folder that API and upkeep share, or s3://bucket/prefix.",
    )
    s3_endpoint: str = Field(
        default="", description="Address of an S3-compatible server; empty: Amazon's own, by region."
    )
    s3_region: str = Field(default="", description="Region of the bucket; empty: AWS_REGION.")
    s3_access_key: SecretStr | None = Field(
        default=None, description="Access key of the bucket; unset: AWS_ACCESS_KEY_ID, or the machine's role."
    )
    s3_secret_key: SecretStr | None = Field(default=None, description="Secret of the access key.")
    s3_connect_timeout: Duration = Field(
        default=timedelta(seconds=3), description="Longest time to connect to the bucket's server."
    )
    s3_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="Longest time of one request to the bucket; no request is begun again after it.",
    )
    largest_file: PositiveInt = Field(default=209_715_200, description="Largest uploaded file, in bytes.")
    per_tenant: NonNegativeInt = Field(
        default=21_474_836_480, description="Bytes that the files of a tenant may take; 0 is no bound."
    )


class BatchSettings(Group):
    most_lines: PositiveInt = Field(default=50_000, description="Lines that one batch may have.")
    longest_line: PositiveInt = Field(default=1_048_576, description="Longest line of a batch, in bytes.")
    open_lines: NonNegativeInt = Field(
        default=1_000_000,
        description="Lines that the unfinished batches of a tenant may have together; 0 is no bound.",
    )
    chunk: PositiveInt = Field(default=1000, description="Lines that become jobs in one transaction.")
    lease: Duration = Field(
        default=timedelta(seconds=15),
        description="Work on a batch that was not renewed for this long is taken over.",
    )
    poll: Duration = Field(
        default=timedelta(seconds=1), description="Looks for work this often even when nothing wakes it."
    )
    output_ttl: Duration = Field(
        default=timedelta(days=30), description="How long output files are kept where a batch says nothing."
    )

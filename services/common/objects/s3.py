"""Any S3-compatible store as an ObjectStore, by boto3 in threads."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError, SSLError

from services.common.errors import AlreadyExists, Conflict, HeadraceError, NotFound, PermissionDenied, Unavailable
from services.common.objects.port import ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Every part but the last must have at least 5 MiB.
PART_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


class S3Store:
    """Implements ObjectStore on a bucket and a key prefix.

    Credentials come from where boto3 looks for them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, profiles, roles).
    """

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, region: str | None, ca: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._region = region or "us-east-1"
        self._client: S3Client = boto3.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=self._region,
            verify=ca or None,  # read anew for each connection; what it once held stays believed
            config=Config(
                signature_version="s3v4",
                connect_timeout=3,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 4},
                # Other stores than AWS answer checksums oddly, on ranges above all.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, if_absent: bool = False) -> ObjectInfo:
        """One request for small objects, a multipart upload for the rest."""
        name, condition = self._prefix + key, {"IfNoneMatch": "*"} if if_absent else {}
        head, ended = await _fill(chunks)
        if ended:
            answer = await self._call("put_object", key, Key=name, Body=head, **condition)
            return ObjectInfo(key, len(head), answer["ETag"])
        upload = (await self._call("create_multipart_upload", key, Key=name))["UploadId"]
        size, parts = 0, []
        try:
            for number in itertools.count(1):
                part = await self._call("upload_part", key, Key=name, UploadId=upload, PartNumber=number, Body=head)
                parts.append({"ETag": part["ETag"], "PartNumber": number})
                size += len(head)
                if ended:
                    break
                head, ended = await _fill(chunks)
                if not head:
                    break
            answer = await self._call(
                "complete_multipart_upload",
                key,
                Key=name,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except BaseException:
            # The parts cost storage until they are aborted; what went wrong before matters more than whether this does.
            with contextlib.suppress(HeadraceError):
                await self._call("abort_multipart_upload", key, Key=name, UploadId=upload)
            raise
        return ObjectInfo(key, size, answer["ETag"])

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Chunks of one mebibyte."""
        body = (await self._call("get_object", key, Key=self._prefix + key))["Body"]
        try:
            while chunk := await asyncio.to_thread(body.read, CHUNK_BYTES):
                yield chunk
        except BotoCoreError as error:
            raise Unavailable(f"the object store broke off while '{key}' was read: {error}; try again") from error
        finally:
            body.close()

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Page by page, in key order."""
        more: dict[str, Any] = {}
        while True:
            page = await self._call("list_objects_v2", prefix, Prefix=self._prefix + prefix, **more)
            for entry in page.get("Contents", ()):
                key, written = entry["Key"].removeprefix(self._prefix), entry["LastModified"].timestamp()
                yield ObjectInfo(key, entry["Size"], entry["ETag"], written)
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, key: str) -> None:
        """Removes the object."""
        await self._call("delete_object", key, Key=self._prefix + key)

    async def url(self, key: str, expires: float) -> str:
        """A presigned GET."""
        parameters = {"Bucket": self._bucket, "Key": self._prefix + key}
        return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=int(expires))

    async def ensure_bucket(self) -> None:
        """Makes the bucket if it is not there. Raises Unavailable, PermissionDenied."""
        try:
            await self._call("head_bucket", "")
        except NotFound:
            # AWS wants the region named everywhere but in its first one.
            place = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            with contextlib.suppress(AlreadyExists):  # another registry starts beside this one
                await self._call("create_bucket", "", **({} if self._region == "us-east-1" else place))

    async def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        method = getattr(self._client, operation)
        try:
            return await asyncio.to_thread(method, Bucket=self._bucket, **arguments)
        except ClientError as error:
            raise _translate(error, key, self._bucket) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise PermissionDenied(
                f"no credentials for bucket '{self._bucket}': set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except SSLError as error:
            raise Unavailable(
                f"the object store's certificate is refused: {error}; HEADRACE_TLS_STORE_CA names the file with its"
                " issuers (PEM), and the endpoint's host must be in it"
            ) from error
        except BotoCoreError as error:
            raise Unavailable(f"the object store does not answer: {error}") from error


def _translate(error: ClientError, key: str, bucket: str) -> HeadraceError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in {"NoSuchKey", "404", "NoSuchBucket", "NotFound"}:
        return NotFound(f"no object '{key}' in bucket '{bucket}'")
    if code in {"PreconditionFailed", "412", "BucketAlreadyOwnedByYou"}:
        return AlreadyExists(f"object '{key}' exists")
    if code in {"ConditionalRequestConflict", "409"}:
        return Conflict(f"object '{key}' is being written by somebody else; try again")
    if code in {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
        return PermissionDenied(f"the object store refuses '{key}' in bucket '{bucket}': {code}; check the credentials")
    return Unavailable(f"the object store failed on '{key}' in bucket '{bucket}': {error}")


async def _fill(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The next part's worth of bytes, and whether that was the end."""
    gathered, size = [], 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= PART_BYTES:
            return b"".join(gathered), False
    return b"".join(gathered), True

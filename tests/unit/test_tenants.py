"""Tenants: the file, keys and tokens, what each may, and how much."""

from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.keys import hash_line, is_hash_line, key_id, matches, new_key
from services.common.errors import HeadraceError, InvalidArgument, PermissionDenied, QueueFull, Unauthenticated
from services.common.tenants.access import Access
from services.common.tenants.directory import read_directory
from services.common.tenants.tenant import Tenant
from services.gateway.quotas import Quotas
from tests.support.tenants import AUDIENCE, ISSUER, Issuer, TenantsFile


def bearer(said: str) -> dict[str, str]:
    return {"authorization": f"Bearer {said}"}


def test_a_key_is_kept_as_a_hash_that_leads_back_to_nothing() -> None:
    key = new_key()
    line = hash_line(key)
    assert is_hash_line(line) and matches(key, line) and line.startswith(f"{key_id(key)}:")
    assert key.split("_", 2)[2] not in line
    assert len(key.split("_", 2)[2]) >= 43, "256 bits"
    assert not matches(new_key(), line)
    assert new_key() != new_key()


@given(st.text(max_size=80))
def test_whatever_is_sent_as_a_key_is_refused(said: str) -> None:
    directory = read_directory(f"tenants: {{a: {{keys: ['{hash_line(new_key())}']}}}}")
    with pytest.raises(Unauthenticated):
        directory.owner(said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenants: [", "not YAML"),
        ("- a", "the file: "),
        ("{}", "tenants: Field required"),
        ("tenants: {a: {keys: [hr_1_secret]}}", "never the key itself"),
        ("tenants: {a: {requests: 3}}", "tenants.a.requests: Extra inputs"),
        ("tenants: {a: {priority: 99}}", "tenants.a.priority"),
        ("tenants: {'a b': {}}", "should match pattern"),
        (f"tenants: {{a: {{keys: ['1:{'0' * 64}']}}, b: {{keys: ['1:{'1' * 64}']}}}}", "'a' has a key of the same id"),
        ("tenants: {}\ntokens: {issuer: x}", "tokens.audience: Field required"),
    ],
)
def test_a_file_that_is_wrong_says_where(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_directory(text)
    assert message in str(raised.value)


def test_credentials_come_in_either_header_and_the_file_is_followed(tmp_path: Path) -> None:
    file = TenantsFile(tmp_path / "tenants.yaml")
    key = file.add("search", priority=1)
    access = Access(file.path)
    assert access.look()
    assert access.tenant_of(bearer(key)).name == "search"
    assert access.tenant_of({"authorization": f"bearer  {key} "}).weight == 2
    assert access.tenant_of({"x-api-key": key}).name == "search"
    for wrong in ({}, bearer(""), bearer("hr_x"), bearer(new_key()), bearer("sk-1"), {"authorization": f"Basic {key}"}):
        with pytest.raises(Unauthenticated):
            access.tenant_of(wrong)
    assert not access.look(), "nothing has changed"
    other = file.add("ads")
    file.remove("search")
    assert access.look()
    assert access.tenant_of(bearer(other)).name == "ads"
    with pytest.raises(Unauthenticated, match="withdrawn"):
        access.tenant_of(bearer(key))
    file.path.write_text("tenants: nonsense")
    with pytest.raises(InvalidArgument, match=r"tenants\.yaml: tenants"):
        access.look()
    assert access.tenant_of(bearer(other)).name == "ads", "what was good stays"


async def test_tokens_of_the_issuer_count_and_no_others(tmp_path: Path) -> None:
    issuer, file = Issuer(tmp_path / "jwks.json"), TenantsFile(tmp_path / "tenants.yaml")
    file.add("search")
    file.believe("jwks.json")
    access = Access(file.path)
    access.look()
    with pytest.raises(HeadraceError, match="cannot be read now"):
        access.tenant_of(bearer(issuer.token(team="search")))
    await access.refresh()
    good = issuer.token(team="search")
    assert access.tenant_of(bearer(good)).name == "search"
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": 9e9, "team": "search"}
    head, body, signature = good.split(".")
    refused = {
        "expired": issuer.token(-3600, team="search"),
        "audience": issuer.token(team="search", aud="another"),
        "issuer": issuer.token(team="search", iss="https://evil.example"),
        "no claim 'team'": issuer.token(),
        "which the tenants file does not have": issuer.token(team="nobody"),
        "Signature verification failed": f"{head}.{body}.{signature[:-8]}AAAAAAAA",
        # The oldest tricks: a symmetric signature, and none at all.
        "alg value is not allowed": jwt.encode(claims, "s" * 64, "HS256", headers={"kid": "1"}),
        "alg value is not allowed$": jwt.encode(claims, "", "none", headers={"kid": "1"}),
    }
    for message, token in refused.items():
        with pytest.raises(Unauthenticated, match=f"(?i){message}"):
            access.tenant_of(bearer(token))
    issuer.turn_over()
    new = issuer.token(team="search")
    with pytest.raises(Unauthenticated, match="does not publish, or not yet"):
        access.tenant_of(bearer(new))
    await access.refresh()
    assert access.tenant_of(bearer(new)).name == "search"
    with pytest.raises(Unauthenticated):
        access.tenant_of(bearer(good))


def test_permissions_by_pattern() -> None:
    reader, writer = Tenant("a", models=("rank-*", "digits")), Tenant("b", models=("rank-*",), write=True)
    assert [reader.may_use(name) for name in ("rank-1", "digits", "digits2", "")] == [True, True, False, False]
    with pytest.raises(PermissionDenied, match="may not use model 'other'"):
        reader.check_use("other")
    with pytest.raises(PermissionDenied, match="write: true"):
        reader.check_write("digits")
    writer.check_write("rank-1")
    with pytest.raises(PermissionDenied, match="may not use model 'digits'"):
        writer.check_write("digits")


def test_quotas_of_rate_and_of_concurrency() -> None:
    quotas, tenant = Quotas(), Tenant("a", requests_per_second=2, max_concurrent=3)
    for _ in range(2):
        quotas.begin(tenant, 0.0)
    with pytest.raises(QueueFull, match="2 requests a second") as refused:
        quotas.begin(tenant, 0.0)
    assert refused.value.retry_after == pytest.approx(0.5)
    quotas.begin(tenant, 0.5)
    with pytest.raises(QueueFull, match="3 requests under way"):
        quotas.begin(tenant, 10.0)
    quotas.end(tenant)
    quotas.begin(tenant, 10.0)
    quotas.begin(Tenant("b"), 10.0)
    # The file was read again: the same limits keep their bucket and count, others begin.
    with pytest.raises(QueueFull, match="3 requests under way"):
        quotas.begin(Tenant("a", requests_per_second=2, max_concurrent=3), 10.0)
    quotas.begin(Tenant("a", max_concurrent=4), 10.0)

"""What the API shows of extensions. Public names are camelCase."""

from ninja import Schema


class CapabilityOut(Schema):
    capabilityId: str  # noqa: N815
    alias: str
    title: str
    description: str
    riskLevel: str  # noqa: N815
    sideEffects: str  # noqa: N815
    dataEgress: str  # noqa: N815


class ExtensionOut(Schema):
    id: str
    extensionId: str  # noqa: N815
    extensionType: str  # noqa: N815
    title: str
    trustLevel: str  # noqa: N815
    trustReason: str  # noqa: N815
    lifecycle: str
    version: str
    definitionHash: str  # noqa: N815
    reviewedHash: str  # noqa: N815
    capabilities: list[CapabilityOut]


class ExtensionList(Schema):
    items: list[ExtensionOut]

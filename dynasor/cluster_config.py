"""`[cluster]` of the configuration: engine replicas on Ray, how many and of what size."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class ClusterConfig(BaseModel):
    """`[cluster]`: replicas of the engine on Ray Serve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "dynasor", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the application on Ray"
    )
    min_replicas: int = Field(1, ge=1, le=4096, description="replicas of the engine, at least")
    max_replicas: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="replicas of the engine, at most; not set: min_replicas, always",
    )
    tokens_a_replica: float = Field(
        50_000.0,
        gt=0,
        description="output tokens that are expected to come, for each replica: with more there are "
        "more replicas",
    )
    scale_up_after: float = Field(
        10.0, ge=0, description="seconds for which more are wanted until there are more"
    )
    scale_down_after: float = Field(
        300.0, ge=0, description="seconds for which fewer are wanted until there are fewer"
    )
    replica_cpus: float = Field(1.0, ge=0, description="cores that Ray reserves for a replica")
    endpoints: int = Field(1, ge=1, le=256, description="processes that take requests of clients")
    max_expected_tokens: float | None = Field(
        None,
        gt=0,
        description="output tokens expected from all queries beyond which new ones get 429",
    )

    @field_validator("max_replicas")
    @classmethod
    def _not_below_the_least(cls, value: int | None, info: ValidationInfo) -> int | None:
        least = info.data.get("min_replicas", 1)
        if value is not None and value < least:
            raise ValueError(f"must be cluster.min_replicas or more, which is {least}")
        return value

    @property
    def most(self) -> int:
        """Replicas at most."""
        return self.max_replicas or self.min_replicas

"""What computing time costs, for users to know before they start."""

from typing import Annotated

from pydantic import Field

from hpcspawner.site.fields import Frozen, Line

Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Rates(Frozen):
    """What an hour costs, in the site's unit."""

    core_hour: Annotated[Rate, Field(description="One core for an hour.")] = 0.0
    gpu_hour: Annotated[Rate, Field(description="One GPU for an hour, above its cores.")] = 0.0


class Cost(Rates):
    """The site's rates, and how the Hub learns what an account has left."""

    unit: Line = "core hours"
    balance: Annotated[
        tuple[Line, ...],
        Field(description="argv that prints what `{account}` or `{user}` has left; its first line is shown."),
    ] = ()

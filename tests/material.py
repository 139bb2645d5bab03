"""A profile with one of everything, and names that a folder may really have."""

import pytest

FULL = {
    "title": "Test cluster",
    "scheduler": {"type": "slurm"},
    "account": "optional",
    "reservation": "optional",
    "accounts": ["ddp363", "tro100"],
    "partitions": [
        {
            "name": "debug",
            "max_walltime": "30m",
            "max_nodes": 2,
            "max_cpus": 4,
            "max_memory": "4G",
            "qos": ["normal", "debug"],
            "features": ["skylake", "ssd"],
        },
        {"name": "compute", "max_walltime": "2d", "max_cpus": 24, "whole_nodes": True, "accounts": ["tro100"]},
        {
            "name": "gpu",
            "max_walltime": "1d",
            "max_cpus": 16,
            "max_memory": "32G",
            "gpus": {"v100": 4, "a100": 2},
            "min_gpus": 1,
            "directives": [{"option": "gres-flags", "value": "enforce-binding"}],
        },
    ],
    "images": [{"name": "torch", "path": "/images/torch.simg", "binds": ["/scratch"]}],
    "environments": [
        {
            "name": "science",
            "title": "Science stack",
            "purge_modules": True,
            "modules": ["gcc/12", "anaconda/3"],
            "conda": "jupyter",
            "path": ["~/bin", "/opt/it's here/bin"],
            "variables": {"OMP_NUM_THREADS": "1"},
            "setup": ["ulimit -s unlimited"],
        },
        {"name": "plain"},
    ],
    "own_setup": {"max_chars": 500},
    "defaults": {"memory": "2G"},
    "limits": {"renewals": 3},
    "job": {
        "directives": [{"option": "mail-type", "value": "NONE"}],
        "prologue": "echo prologue",
        "epilogue": "echo epilogue",
        "ports": [20000, 20100],
    },
}

NASTY = [
    pytest.param("two words", id="space"),
    pytest.param("it's", id="apostrophe"),
    pytest.param('say "hi"', id="quotation marks"),
    pytest.param("$(touch /tmp/owned)", id="command substitution"),
    pytest.param("`id`", id="backticks"),
    pytest.param("; rm -rf ~", id="semicolon"),
    pytest.param("#comment", id="hash"),
    pytest.param("back\\slash", id="backslash"),
    pytest.param("{{ 7 * 7 }}", id="template"),
    pytest.param("ünï çødé", id="unicode"),
    pytest.param("--wrap=id", id="looks like an option"),
    pytest.param("x') 4< <(printf 'x", id="the end of a process substitution"),
]
"""Names that a folder may really have."""

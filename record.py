import json, os, subprocess, sys, time, urllib.request, urllib.error, pathlib
from hpcspawner.schedulers.rest import token
from hpcspawner.schedulers import slurm_api_versions as versions

LAB = os.environ["LAB"]
key = open(LAB + "/etc/jwt_hs256.key", "rb").read()
out = pathlib.Path("/tmp/rec")
out.mkdir(exist_ok=True)


def ask(method, path, body=None, user="alice", k=key):
    r = urllib.request.Request(
        "http://127.0.0.1:6820" + path,
        data=body,
        method=method,
        headers={
            "X-SLURM-USER-NAME": user,
            "X-SLURM-USER-TOKEN": token(k, user, int(time.time()) + 600),
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(r) as a:
            return a.status, a.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


V = versions.newest(ask("GET", "/openapi/v3")[1])
print(V)
S, D = f"/slurm/{V}", f"/slurmdb/{V}"


def submit(name, script, *more, **kw):
    opts = [
        ("job-name", name),
        ("comment", "hctag"),
        ("partition", "compute"),
        ("time", "00:10:00"),
        ("nodes", "1"),
        ("ntasks-per-node", "1"),
        ("cpus-per-task", "1"),
        ("mem", "200M"),
        *more,
    ]
    return ask(
        "POST", S + "/job/submit", versions.body(V, versions.neutral(opts, script, {"PATH": "/usr/bin:/bin"})), **kw
    )


def keep(name, answer):
    status, text = answer
    print(name, status, len(text))
    (out / f"{name}.json").write_text(text)


def jid(a):
    return json.loads(a[1])["job_id"]


def state(i):
    return json.loads(ask("GET", f"{S}/job/{i}")[1])["jobs"][0]["job_state"]


def until(i, s):
    for _ in range(100):
        if s in state(i):
            return
        time.sleep(0.3)
    raise SystemExit(f"{i} {state(i)}")


held = submit("hc0dewaits", "#!/bin/bash\ntrue\n", ("hold", ""))
keep("held-submit", held)
keep("held", ask("GET", f"{S}/job/{jid(held)}"))
run = jid(submit("runs", "#!/bin/bash\nsleep 300\n", ("nodelist", "n1")))
until(run, "RUNNING")
keep("running", ask("GET", f"{S}/job/{run}"))
bad = jid(submit("fails", "#!/bin/bash\nexit 3\n", ("nodelist", "n1")))
until(bad, "FAILED")
time.sleep(6)
keep("failed", ask("GET", f"{S}/job/{bad}"))
keep("failed-accounted", ask("GET", f"{D}/job/{bad}"))
can = jid(submit("ends", "#!/bin/bash\nsleep 300\n", ("nodelist", "n1")))
until(can, "RUNNING")
ask("DELETE", f"{S}/job/{can}")
time.sleep(9)
keep("cancelled", ask("GET", f"{S}/job/{can}"))
keep("cancelled-accounted", ask("GET", f"{D}/job/{can}"))
keep("not-accounted", ask("GET", f"{D}/job/99"))
keep("unknown-job", ask("GET", f"{S}/job/99"))
keep("unknown-cancel", ask("DELETE", f"{S}/job/99"))
keep("refused", submit("x", "#!/bin/bash\ntrue\n", ("qos", "nosuch")))
keep("not-yours", ask("DELETE", f"{S}/job/{run}", user="bob"))
keep("bad-token", ask("GET", f"{S}/jobs", k=b"x" * 32))
keep("bad-token-submit", submit("x", "#!/bin/bash\ntrue\n", k=b"x" * 32))
keep("nodes", ask("GET", S + "/nodes"))
keep("partitions", ask("GET", S + "/partitions"))
for i in (run, jid(held)):
    ask("DELETE", f"{S}/job/{i}")

"""A stand-in for a W&B server, for the tests: what wandb asks when it logs runs and reads them back, and faults.

It goes by the name of an operation and answers with all that any client may ask for. A run's history is what the file
stream says line by line; the id of a deleted run is blocked. How a real server behaves is an assumption.
"""

import base64
import gzip
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "local" + "0" * 40
ENTITY = "lab"
Fault = int | str | None  # a status, `drop` the connection, `hang`; None is none


class StandIn:
    """The server, while the block lasts.

    Attributes:
        runs: By id.
        artifacts: In the order in which they were made, each with the run that logged it.
        uses: Ids of a run and of an artifact that it used.
        views: Reports, by id.
        deleted: Ids that are blocked.
        blobs: Files of runs and of artifacts, by path.
        sent: What was asked for or sent: path, headers and body.
        fault: What goes wrong with a request, by its path and body.
        delay: Seconds before every answer.
        busiest: Most requests that were answered at once.
    """

    def __init__(self):
        self.runs: dict[str, dict] = {}
        self.artifacts: list[dict] = []
        self.uses: list[tuple[str, str]] = []
        self.views: dict[str, dict] = {}
        self.deleted: set[str] = set()
        self.blobs: dict[str, str] = {}
        self.sent: list[tuple[str, str, str]] = []
        self.fault: Callable[[str, str], Fault] = lambda path, body: None
        self.delay = 0.0
        self.now, self.busiest = 0, 0
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), type("OfThis", (Handler,), {"stand_in": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "StandIn":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def of_kind(self, kind: str) -> list[dict]:
        """Runs of a job type, without those that were replaced."""
        return [run for run in self.runs.values() if run["jobType"] == kind and "superseded" not in run["tags"]]

    def everything(self) -> dict:
        """What must be the same however often the sweep was disturbed: runs, their points and scores."""
        own = {
            "_step",
            "_timestamp",
            "_runtime",
            "_wandb",
            "seconds",
            "peak_memory_mb",
            "running/seconds",
            "running/uf1",
        }
        own |= {"clips", "confusion_table"}  # named by the hash of their content and the step
        return {
            (run["jobType"], run["displayName"], run["state"]): (
                [(row["_step"], {name: n for name, n in row.items() if name not in own}) for row in run["history"]],
                {name: n for name, n in run["summary"].items() if name not in own},
            )
            for run in self.runs.values()
        }

    def answer(self, name: str, given: dict) -> dict:
        """The data of a GraphQL operation."""
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "RunResumeStatus":
            run = self.runs.get(given["name"])
            return {"model": {**PROJECT, "bucket": run and self.bucket(run)}}
        if name == "UpsertBucket":
            return {"upsertBucket": {"bucket": self.bucket(self.upsert(given)), "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/blob/{given['run']}/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if name in ("Run", "GetRun", "RunHistoryKeys"):
            run = self.runs.get(given["name"])
            return {"project": {**PROJECT, "run": run and self.bucket(run)}}
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if "rtifact" in name:
            return self.artifact(name, given)
        if name == "upsertView":
            return {"upsertView": {"view": self.view(given), "inserted": True}}
        if name == "SpecificReport":
            return {"view": self.views[given["reportId"]]}
        if name == "GetProjects":
            return {"models": {"edges": [{"node": PROJECT, "cursor": ""}], "pageInfo": PAGE}}
        return {"viewer": VIEWER, "serverInfo": {"cliVersionInfo": {}, "features": []}}

    def bucket(self, run: dict) -> dict:
        texts = {
            "config": run["config"],
            "summaryMetrics": run["summary"],
            "wandbConfig": run["config"]["_wandb"]["value"],
        }
        last = max([row.get("_step", 0) for row in run["history"]], default=-1)
        return {
            **{name: run[name] for name in ("name", "displayName", "state", "tags", "jobType", "sweepName")},
            **{name: json.dumps(content) for name, content in texts.items()},
            "id": base64.b64encode(f"Run:v1:{run['name']}:mer:{ENTITY}".encode()).decode(),
            "group": run["groupName"],
            "projectId": "1",
            "project": PROJECT,
            "historyLineCount": len(run["history"]),
            "historyTail": json.dumps([json.dumps(row) for row in run["history"][-1:]]),
            "historyKeys": {"lastStep": last, "keys": {}},
            **dict.fromkeys(("eventsLineCount", "logLineCount"), 0),
            **dict.fromkeys(("eventsTail",), "[]"),
            **dict.fromkeys(("createdAt", "heartbeatAt"), "2020-01-01T00:00:00Z"),
            **dict.fromkeys(("commit", "description", "notes"), ""),
            "systemMetrics": "{}",
            "readOnly": False,
            "user": {"name": "user", "username": "user"},
        }

    def upsert(self, given: dict) -> dict:
        name = given.get("name") or base64.b64decode(given["id"]).decode().split(":")[2]
        if name in self.deleted:
            raise PermissionError(f"run {name} was previously created and deleted; try a new run name")
        new = {"name": name, "history": [], "summary": {}, "tags": [], "state": "running", "sweepName": None}
        run = self.runs.setdefault(name, new | {"config": {"_wandb": {"value": {}}}, "groupName": "", "jobType": ""})
        run["project"] = given.get("project") or run.get("project")
        for field in ("displayName", "groupName", "jobType", "tags", "host", "program"):
            run[field] = given[field] if given.get(field) is not None else run.get(field)
        run["config"] = json.loads(given["config"]) if given.get("config") else run["config"]
        run["sweepName"] = given.get("sweep") or run["sweepName"]
        return run

    def stream(self, name: str, body: dict) -> dict:
        run = self.runs[name]
        for file, part in (body.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if file.startswith("wandb-") else []
            if file == "wandb-history.jsonl":
                run["history"][part["offset"] :] = lines
            elif file == "wandb-summary.json":
                run["summary"] = lines[-1]
            run["state"] = "running"
        if body.get("complete"):
            run["state"] = "finished" if body.get("exitcode") == 0 else "failed"
        return {"exitcode": None, "limits": {}}

    def artifact(self, name: str, given: dict) -> dict:
        if name == "CreateArtifact":
            given = given["input"]
            made = {
                "name": given["artifactCollectionName"],
                "type": given["artifactTypeName"],
                "run": given["runName"],
                **{
                    "digest": given["digest"],
                    "state": "PENDING",
                    "id": base64.b64encode(f"Artifact:{len(self.artifacts)}".encode()).decode(),
                    "files": {},
                },
            }
            same = [a for a in self.artifacts if (a["name"], a["digest"]) == (made["name"], made["digest"])]
            self.artifacts += [] if same else [made]
            return {"createArtifact": {"artifact": self.described((same or [made])[0])}}
        if name == "CreateArtifactFiles":
            nodes = []
            for file in given.get("input", given)["artifactFiles"]:
                made, place = self.found(file["artifactID"]), f"/blob/{file['artifactID']}/{file['name']}"
                made["files"][file["name"]] = place
                upload = {"uploadUrl": self.url + place, "uploadHeaders": [], "uploadMultipartUrls": None}
                nodes.append({"node": {**upload, "storagePath": "", "artifact": {"id": made["id"]}}})
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if name == "UseArtifact":
            given = given.get("input", given)
            self.uses.append((given["runName"], given["artifactID"]))
            return {"useArtifact": {"artifact": self.described(self.found(given["artifactID"]))}}
        if name == "CommitArtifact":
            self.found(given["artifactID"])["state"] = "COMMITTED"
            return {"commitArtifact": {"artifact": self.described(self.found(given["artifactID"]))}}
        if name in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            made = given.get("artifactID") or given["artifactManifestID"]
            file = {"id": made, "uploadUrl": f"{self.url}/blob/{made}", "uploadHeaders": []}
            return {name[0].lower() + name[1:]: {"artifactManifest": {"id": made, "file": file}}}
        return {"artifact": self.described(self.found(given["id"]))}

    def found(self, name: str) -> dict:
        return next(artifact for artifact in self.artifacts if artifact["id"] == name)

    def described(self, artifact: dict) -> dict:
        collection = {
            "__typename": "ArtifactSequence",
            "name": artifact["name"],
            "latestArtifact": None,
            "project": PROJECT,
        }
        return {
            "__typename": "Artifact",
            **{name: artifact[name] for name in ("id", "state", "digest")},
            "artifactSequence": collection,
            "currentManifest": {"id": "m", "file": {"id": "m", "directUrl": f"{self.url}/blob/{artifact['id']}"}},
            "artifactType": {"name": artifact["type"]},
            **dict.fromkeys(("versionIndex", "size", "fileCount"), 0),
            **dict.fromkeys(("description", "historyStep", "commitHash", "updatedAt")),
            "metadata": "{}",
            "ttlIsInherited": False,
            "ttlDurationSeconds": -2,
            "createdAt": "2020-01-01T00:00:00Z",
            **{"tags": [], "aliases": []},
        }

    def view(self, given: dict) -> dict:
        name = given["id"] or base64.b64encode(f"View:{len(self.views)}".encode()).decode()
        if given["id"] and name not in self.views:
            raise PermissionError("there is no such view")
        self.views[name] = {**given, "id": name, "project": PROJECT}
        return self.views[name]


PAGE = {"hasNextPage": False, "endCursor": None}
OWNER = {"__typename": "Entity", "id": "e", "name": ENTITY}
PROJECT = {"__typename": "Project", "id": "p", "name": "mer", "entity": OWNER, "entityName": ENTITY, "internalId": "1",
           "createdAt": "2020-01-01T00:00:00Z", "isBenchmark": False, "user": None}  # fmt: skip
VIEWER = {"id": "u", "entity": ENTITY, "username": "user", "email": "", "flags": "{}", "teams": {"edges": []},
          "defaultEntity": OWNER, "name": "user", "admin": False}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed closes its connections; anything else is a fault of this file."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        """Any request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = (gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body).decode(
            errors="replace"
        )
        self.stand_in.sent.append((self.path, str(self.headers), text))
        with self.stand_in.lock:
            self.stand_in.now += 1
            self.stand_in.busiest = max(self.stand_in.busiest, self.stand_in.now)
        time.sleep(self.stand_in.delay)
        with self.stand_in.lock:
            self.stand_in.now -= 1
        fault = self.stand_in.fault(self.path, text)
        while fault == "hang" and (fault := self.stand_in.fault(self.path, text)):
            time.sleep(0.1)
        if fault == "drop":
            self.close_connection = True
            return
        status, answer = (fault, {"errors": [{"message": "a fault"}]}) if fault else self._answer(text)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST

    def _answer(self, text: str) -> tuple[int, Any]:
        stand_in, key = self.stand_in, self.headers.get("Authorization", "")
        basic = base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.path.startswith("/blob/") and self.command == "PUT":
            stand_in.blobs[self.path] = text
        if self.path == "/" or self.path.startswith("/blob/"):
            return 200, json.loads(stand_in.blobs.get(self.path, "{}")) if self.command == "GET" else {}
        if key not in (f"Basic {basic}", f"Bearer {KEY}"):
            return 401, {"errors": [{"message": "user is not logged in"}]}
        with stand_in.lock:
            if self.path.endswith("/file_stream"):
                return 200, stand_in.stream(self.path.split("/")[-2], json.loads(text))
            asked = json.loads(text)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            try:
                return 200, {"data": stand_in.answer(named[1] if named else "", asked.get("variables") or {})}
            except PermissionError as error:
                return 409, {"errors": [{"message": str(error)}]}

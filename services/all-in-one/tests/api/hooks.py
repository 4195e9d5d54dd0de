"""What Schemathesis cannot know from the OpenAPI document: passwords that are right, ids that exist, and what would end its
own session."""

import itertools
import json
import os

import requests
import schemathesis

# Given by api.rs: the gateway, who asks (`user_uuid`, `user_email`, `session_id`, `password`), an account to log in to (`login_email`) and
# one to be managed (`managed`), a stream that is live (`live`), whose it is (`channel`) and the room of its chat
# (`stream_room`), a room of whoever asks (`room`, `conversation`) with a message in it (`message`), the code of another one
# (`room_code`), the webhook secret, and a file that is told every answer.
GIVEN = json.loads(os.environ["AMPHI_API_TEST"])
NUMBERS = itertools.count(1)
# These change as the operations succeed.
password = GIVEN["password"]
refresh_token = ""


def another_session():
    """The id of a new session of whoever asks."""
    url = GIVEN["gateway"] + "/api/v1/auth/"
    body = {"user_email": GIVEN["user_email"], "user_password": password}
    headers = {"X-Forwarded-For": place()}
    answer = requests.post(url + "login", json=body, headers=headers, timeout=20)
    headers["Authorization"] = "Bearer " + answer.json()["token"]
    sessions = requests.get(url + "sessions", headers=headers, timeout=20).json()["sessions"]
    return next(session["session_id"] for session in sessions if session["is_current"])


def another_room():
    """The id of a new room of whoever asks."""
    headers = {"Authorization": "Bearer " + GIVEN["token"], "X-Forwarded-For": place()}
    answer = requests.post(GIVEN["gateway"] + "/api/v1/rooms", json={}, headers=headers, timeout=20)
    return answer.json()["room_id"]


def place():
    """An address in a network that nobody has asked from: what limits guesses would hide what is behind it."""
    number = next(NUMBERS)
    return f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"


def is_positive(case):
    return case.meta is None or case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = {**(case.headers or {}), "X-Forwarded-For": place()}
    operation = case.operation.label
    if operation == "POST /api/v1/webhook/stream-event" and is_positive(case):
        headers["X-Webhook-Secret"] = GIVEN["webhook_secret"]
    case.headers = headers

    path = dict(case.path_parameters or {})
    # Half of the time, and never oneself: an administrator who suspends themselves is out.
    if "user_uuid" in path and (path["user_uuid"] == GIVEN["user_uuid"] or (is_positive(case) and next(NUMBERS) % 2)):
        path["user_uuid"] = GIVEN["managed"]
    if "session_id" in path and (path["session_id"] == GIVEN["session_id"] or (is_positive(case) and next(NUMBERS) % 2)):
        path["session_id"] = another_session()
    # Nobody follows themselves.
    if "user_id" in path and (path["user_id"] == GIVEN["user_uuid"] or (is_positive(case) and next(NUMBERS) % 2)):
        path["user_id"] = GIVEN["channel"]
    # What is not live cannot be watched.
    if operation.endswith(("/{id}/view", "/{id}/viewers")) and is_positive(case) and next(NUMBERS) % 2:
        path["id"] = str(GIVEN["live"])
    if "room_id" in path and is_positive(case):
        # Who has left a room can do nothing else in it.
        rooms = {"/join": lambda: GIVEN["stream_room"], "/leave": another_room}
        path["room_id"] = str(rooms.get(operation[operation.rfind("/") :], lambda: GIVEN["room"])())
    if "conversation_id" in path and is_positive(case):
        path["conversation_id"] = GIVEN["conversation"]
    case.path_parameters = path

    query = dict(case.query or {})
    around = [name for name in ("before", "after", "around") if name in query]
    if around and is_positive(case):
        for name in around:
            del query[name]
        query[around[0]] = GIVEN["message"]
        case.query = query

    if is_positive(case) and isinstance(case.body, dict):
        body = dict(case.body)
        if operation == "POST /api/v1/auth/login":
            body["user_email"] = GIVEN["login_email"]
        for name in ("user_password", "current_password"):
            if name in body and operation != "POST /api/v1/auth/register":
                is_own = operation not in ("POST /api/v1/auth/login", "DELETE /api/v1/auth/me")
                body[name] = password if is_own else GIVEN["password"]
        if operation == "POST /api/v1/auth/refresh" and refresh_token:
            body["refresh_token"] = refresh_token
        if operation == "POST /api/v1/rooms/join-by-code":
            body["room_code"] = GIVEN["room_code"]
        if operation == "POST /api/v1/conversations":
            body.pop("userId", None)
            body["participantIds"] = [GIVEN["managed"]]
        if operation.startswith("POST ") and operation.endswith("_id}/messages"):
            body["content"] = body.get("content", "").strip() or "Hello"
        if "messageId" in body:
            body["messageId"] = GIVEN["message"]
        case.body = body


@schemathesis.hook
def after_call(context, case, response):
    global password, refresh_token
    operation = case.operation.label
    if operation == "POST /api/v1/auth/password" and response.status_code == 204:
        password = case.body["new_password"]
    if operation in ("POST /api/v1/auth/register", "POST /api/v1/auth/refresh") and response.status_code < 300:
        refresh_token = response.json()["refresh_token"]
    with open(GIVEN["answers"], "a", encoding="utf-8") as answers:
        print(operation, response.status_code, file=answers)

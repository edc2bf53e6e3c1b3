"""Commands of the troubleshooting page, as they stand there."""

from __future__ import annotations

READY = "curl -sS http://localhost:18080/readyz"
DENIED_LOGINS = """\
curl -fsS "http://localhost:18080/api/v1/audit-events?action=auth.login" \\
  -H "Authorization: Bearer $TOKEN" \\
  | jq '.[] | select(.status=="denied")'"""
ALL_EVENTS = """\
curl -fsS http://localhost:18080/api/v1/audit-events \\
  -H "Authorization: Bearer $TOKEN\""""
ONE_REQUEST = """\
curl -fsS "http://localhost:18080/api/v1/audit-events?correlation_id=<uuid>" \\
  -H "Authorization: Bearer $TOKEN" | jq '.[] | {time:.occurred_at, actor, action, resource}'"""
LAST_HOUR = """\
SINCE=$(date -u -d '1 hour ago' +%Y-%m-%dT%H:%M:%SZ)
curl -fsS "http://localhost:18080/api/v1/audit-events?action=auth.login&since=$SINCE" \\
  -H "Authorization: Bearer $TOKEN" \\
  | jq '.[] | select(.status=="denied")'"""
RETRIEVALS = """\
curl -fsS "http://localhost:18080/api/v1/audit-events?action=wrap.retrieve" \\
  -H "Authorization: Bearer $TOKEN" \\
  | jq '.[] | {time:.occurred_at, actor, resource, status}'"""
HEARTBEAT = """\
curl -sS -X POST "http://localhost:18080/api/v1/agents/$AGENT/heartbeat" \\
  -H "X-Agent-Secret: $SECRET" -H 'Content-Type: application/json' -d '{"status":"active"}' \\
  -o answer.json -w '%{http_code}'; cat answer.json"""

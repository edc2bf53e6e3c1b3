"""The outbound-only agent: it runs inside the target network and does the work there."""

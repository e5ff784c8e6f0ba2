"""What a result is: record, evidence, places, pictures. Written by the runner, read by the leaderboard."""

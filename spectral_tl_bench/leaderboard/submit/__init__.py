"""Records on their way onto the leaderboard: nothing in them is believed that can be checked."""

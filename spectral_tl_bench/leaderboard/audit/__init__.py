"""What an audit says: how much of a drop the class shares explain, the page, and the lines on a board's page."""

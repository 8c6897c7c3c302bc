-- outcomes.py: the recipient's signed word that it did not show a message, because it was superseded
-- or its condition did not hold. The reason is where that of declined is.
ALTER TABLE deliveries ADD COLUMN withheld_ms INTEGER;
ALTER TABLE deliveries ADD COLUMN withheld_receipt INTEGER;

-- What a recipient's grants hold back is counted per sender when more of it comes.

-- queues.py: the rows that the broker holds, so that to count them is no walk through the queue.
CREATE INDEX deliveries_held ON deliveries (recipient, seq)
    WHERE status = 'queued' AND held_ms IS NOT NULL;

-- How often the attempt that is due next was handed out before without its end being known. Written by retry-scheduler
-- alone; carried in the duty, so that the log can say how often the receiver may have seen the attempt.
ALTER TABLE pending_deliveries ADD COLUMN handed_out_before integer NOT NULL DEFAULT 0;

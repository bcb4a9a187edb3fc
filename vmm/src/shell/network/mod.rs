//! Network attachments: where the frames of the guest go, and where those for it come from.

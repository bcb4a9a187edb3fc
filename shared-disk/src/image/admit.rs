//! Whether an image is the one that the file beside it is about.

use super::beside::identity::Identity;
use super::error::ImageError;
use super::opened::Image;
use crate::name::MachineName;

impl Identity {
    /// Refuses `image` where it is not as this says, or another machine's than that of `name`.
    ///
    /// # Errors
    /// [`ImageError::OfAnother`], [`ImageError::Shrunk`]
    pub fn admit(&self, image: &Image, name: &MachineName) -> Result<(), ImageError> {
        let path = image.path().to_owned();
        if self.name != *name {
            return Err(ImageError::OfAnother {
                path,
                of: self.name.to_string(),
                wanted: name.to_string(),
            });
        }
        if image.size_bytes() < self.size_bytes {
            return Err(ImageError::Shrunk {
                path,
                size_bytes: image.size_bytes(),
                recorded_bytes: self.size_bytes,
            });
        }
        Ok(())
    }
}

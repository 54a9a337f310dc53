// What names of files say, for the page and its worker.

/** Whether a file is one that systems leave behind or hide, by its name with folders. */
export const isHidden = (name) => name.split('/').some((part) => part.startsWith('.') || part === '__MACOSX' || /^(thumbs\.db|desktop\.ini)$/i.test(part));

/** Whether a name ends as those of pictures do. */
export const isPictureName = (name) => /\.(apng|avif|bmp|gif|hei[cf]|ico|jfif|jpe?g|jxl|png|svg|tiff?|webp)$/i.test(name);

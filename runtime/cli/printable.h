/* Names come from files, and may hold what steers a terminal or is no text at all. */
#ifndef LQC_PRINTABLE_H
#define LQC_PRINTABLE_H

/* Replaces each control character, those of two bytes too, and each byte that is not UTF-8 by '?', in place. */
void make_printable(char *text);

/* Writes `text` to stdout as make_printable() would leave it. */
void print_printable(const char *text);

/* The same in quotes, as a string of JSON, which has a way to write control characters of one byte. */
void print_json_string(const char *text);

#endif /* LQC_PRINTABLE_H */

# The project's own sources as the lints see them: lists of files, text without comments and literals.
package Billing::Source;
use v5.36;
use Billing::Process qw(root slurp);
use Exporter 'import';

our @EXPORT_OK = qw(sources bare_text);

# Relative names of the kinds given: core, module, command, unit, headers (script/sources); all of them by default.
sub sources(@kinds) {
    my $root = root();
    @kinds = qw(core module command unit headers) if !@kinds;
    my %files = map { chomp; $_ => 1 } map { qx($root/script/sources $_) } @kinds;
    return sort keys %files;
}

# C++ text with comments, string and character literals blanked, line by line as long as before. What stands in #include "..."
# is kept with includes => 1.
sub bare_text($text, %option) {
    my $blank = sub ($part) { $part =~ s/[^\n]/ /gr };
    my $keep = $option{includes} ? qr{^[ \t]*#[ \t]*include[^\n]*}m : qr{(?!)};
    $text =~ s{
        ($keep)
        | (//[^\n]* | /\*.*?\*/ | R"([^\s()\\]{0,16})\(.*?\)\g{3}" | "(?:[^"\\\n]|\\.)*" | (?<![0-9a-fA-F])'(?:[^'\\\n]|\\.)+')
    }{defined $1 && length $1 ? $1 : $blank->($2)}gesx;
    return $text;
}

1;

# The promise: every file is found by its name alone (nginx puts objects under <folder>/<name>.o, so that two of a name collide),
# named in snake_case, headers guarded, and short enough to be read as one room.
use v5.36;
use Billing::Process qw(root slurp);
use Billing::Source qw(sources);
use Test::More;

my $longest = 450;

sub violations(%text_of) {
    my (@wrong, %seen);
    for my $file (sort keys %text_of) {
        my ($name) = $file =~ m{([^/]+)$};
        push @wrong, "$file: the name is taken by $seen{$name}" if $seen{$name};
        $seen{$name} //= $file;
        push @wrong, "$file: not snake_case" if $name !~ /^[a-z0-9_]+\.[ch]pp$/;
        push @wrong, "$file: no #pragma once" if $file =~ /\.hpp$/ && $text_of{$file} !~ /^#pragma once$/m;
        my $lines = () = $text_of{$file} =~ /\n/g;
        push @wrong, "$file: $lines lines, more than $longest" if $lines > $longest;
    }
    return @wrong;
}

is_deeply [violations('src/a/one.cpp' => '', 'src/b/one.cpp' => '')], ['src/b/one.cpp: the name is taken by src/a/one.cpp'],
    'a name used twice is found';
is_deeply [violations('src/a/One.cpp' => '')], ['src/a/One.cpp: not snake_case'], 'another style is found';
is_deeply [violations('src/a/one.hpp' => "// once\n")], ['src/a/one.hpp: no #pragma once'], 'a missing guard is found';
is_deeply [violations('src/a/one.cpp' => "\n" x 451)], ['src/a/one.cpp: 451 lines, more than 450'], 'a long file is found';

my %text_of = map { $_ => slurp(root() . "/$_") } sources();
cmp_ok scalar(keys %text_of), '>', 0, 'there are sources';
is join("\n", violations(%text_of)), '', 'all names, guards and lengths are right';

done_testing;
